//! DeleteTopics: by name, and by id from version 6.

use std::collections::HashSet;

use uuid::Uuid;

use crate::cluster::image::Image;
use crate::wire::messages::delete_topics_request::DeleteTopicsRequest;
use crate::wire::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use crate::wire::records::RemoveTopicRecord;
use crate::wire::{ErrorCode, Str};

use super::{Decision, RECORDS_PER_REQUEST_MAX, Refusal, SettingRules, too_many_records};

/// Decides about each topic for itself. One record deletes a topic with its partitions and settings.
pub fn delete_topics(
    image: &Image,
    request: &DeleteTopicsRequest,
    version: i16,
    rules: &dyn SettingRules,
) -> Decision<DeleteTopicsResponse> {
    if !rules.topics_may_be_deleted() {
        return Decision { records: Vec::new(), reply: refuse_deletion(request, &deletion_disabled(version)) };
    }
    let mut answers = Answers::default();
    let (names, ids) = named_once(request, &mut answers);
    let doomed = resolve(image, &names, &ids, &mut answers);
    if doomed.len() > RECORDS_PER_REQUEST_MAX {
        return Decision { records: Vec::new(), reply: refuse_deletion(request, &too_many_records()) };
    }
    let mut records = Vec::with_capacity(doomed.len());
    for (id, name) in doomed {
        records.push(RemoveTopicRecord { topic_id: id, ..Default::default() }.into());
        answers.push(name, id, None);
    }
    Decision { records, reply: DeleteTopicsResponse { responses: answers.0, ..Default::default() } }
}

fn deletion_disabled(version: i16) -> Refusal {
    if version < 3 {
        Refusal::new(ErrorCode::InvalidRequest, "This version does not support topic deletion.")
    } else {
        Refusal::bare(ErrorCode::TopicDeletionDisabled)
    }
}

/// The answer when nothing can be deleted at all.
pub fn refuse_deletion(request: &DeleteTopicsRequest, refusal: &Refusal) -> DeleteTopicsResponse {
    let mut answers = Answers::default();
    for name in &request.topic_names {
        answers.push(Some(name.clone()), Uuid::nil(), Some(refusal.clone()));
    }
    for topic in &request.topics {
        answers.push(topic.name.clone(), topic.topic_id, Some(refusal.clone()));
    }
    DeleteTopicsResponse { responses: answers.0, ..Default::default() }
}

#[derive(Default)]
struct Answers(Vec<DeletableTopicResult>);

impl Answers {
    fn push(&mut self, name: Option<Str>, topic_id: Uuid, refusal: Option<Refusal>) {
        let (code, message) = refusal.map_or((ErrorCode::None, None), |refusal| (refusal.code, refusal.message));
        let result =
            DeletableTopicResult { name, topic_id, error_code: code.code(), error_message: message.map(Str::from), ..Default::default() };
        self.0.push(result);
    }

    fn refuse(&mut self, name: Option<&Str>, topic_id: Uuid, message: &str) {
        self.push(name.cloned(), topic_id, Some(Refusal::new(ErrorCode::InvalidRequest, message)));
    }
}

/// Names and ids that the request holds exactly once, in its order; the others are answered here.
fn named_once<'request>(request: &'request DeleteTopicsRequest, answers: &mut Answers) -> (Vec<&'request Str>, Vec<Uuid>) {
    let mut names: Vec<&Str> = request.topic_names.iter().collect();
    let mut ids = Vec::new();
    for topic in &request.topics {
        match (&topic.name, topic.topic_id.is_nil()) {
            (None, true) => answers.refuse(None, Uuid::nil(), "Neither topic name nor id were specified."),
            (None, false) => ids.push(topic.topic_id),
            (Some(name), true) => names.push(name),
            (Some(name), false) => answers.refuse(Some(name), topic.topic_id, "You may not specify both topic name and topic id."),
        }
    }
    let (names, twice) = split_duplicates(names);
    for name in twice {
        answers.refuse(Some(name), Uuid::nil(), "Duplicate topic name.");
    }
    let (ids, twice) = split_duplicates(ids);
    for id in twice {
        answers.refuse(None, id, "Duplicate topic id.");
    }
    (names, ids)
}

/// What occurs once, and what occurs more often (each of these once).
fn split_duplicates<T: Copy + Eq + std::hash::Hash>(items: Vec<T>) -> (Vec<T>, Vec<T>) {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    let repeated: Vec<T> = items.iter().copied().filter(|item| !seen.insert(*item) && twice.insert(*item)).collect();
    (items.into_iter().filter(|item| !twice.contains(item)).collect(), repeated)
}

/// The topics to delete, each once; what is not there is answered here.
fn resolve(image: &Image, names: &[&Str], ids: &[Uuid], answers: &mut Answers) -> Vec<(Uuid, Option<Str>)> {
    let mut doomed: Vec<(Uuid, Option<Str>)> = Vec::with_capacity(names.len() + ids.len());
    for id in ids {
        match image.topic_by_id(id) {
            Some(topic) => doomed.push((*id, Some(Str::from(&*topic.name)))),
            None => answers.push(None, *id, Some(Refusal::new(ErrorCode::UnknownTopicId, "This server does not host this topic ID."))),
        }
    }
    let by_id: HashSet<Uuid> = doomed.iter().map(|(id, _)| *id).collect();
    let mut twice = HashSet::new();
    for name in names {
        match image.topic(name) {
            None => {
                let unknown = Refusal::new(ErrorCode::UnknownTopicOrPartition, "This server does not host this topic-partition.");
                answers.push(Some((*name).clone()), Uuid::nil(), Some(unknown));
            }
            Some(topic) if by_id.contains(&topic.id) => {
                twice.insert(topic.id);
                answers.refuse(Some(name), topic.id, "The provided topic name maps to an ID that was already supplied.");
            }
            Some(topic) => doomed.push((topic.id, Some((*name).clone()))),
        }
    }
    doomed.retain(|(id, _)| !twice.contains(id));
    doomed
}
