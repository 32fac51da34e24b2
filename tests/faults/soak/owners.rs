//! Who owns which partition, by the words of the coordinator: no partition may have two owners in one generation of a classic group or one epoch of a consumer group.
//!
//! A member owns what an answer gives it, in the generation or epoch of that answer. In a consumer group it also owns, in the epoch of each further answer, what it was told to give back and has
//! not reported as given back. What one member may still read while another reads it already, because it was thrown out and does not know, is of an earlier epoch, and no conflict.

use std::collections::{BTreeMap, BTreeSet};

/// The partitions of the soak's only topic.
pub type Partitions = BTreeSet<i32>;

/// What was seen so far of every group.
#[derive(Default)]
pub struct Owners {
    /// The owner of a partition in a group's generation or epoch.
    owners: BTreeMap<(String, i32, i32), String>,
    /// What a member of a consumer group has, by group and member.
    held: BTreeMap<(String, String), Held>,
    /// The first conflict that was seen.
    conflict: Option<String>,
}

#[derive(Default)]
struct Held {
    assigned: Partitions,
    /// Taken away again; the member has not said yet that it has let go of them.
    revoked: Partitions,
}

impl Owners {
    /// The coordinator gives a member these partitions in this generation or epoch.
    pub fn assigned(&mut self, group: &str, member: &str, generation: i32, partitions: &Partitions) {
        for partition in partitions {
            let owner = self.owners.entry((group.to_string(), generation, *partition)).or_insert_with(|| member.to_string());
            if owner != member {
                let conflict =
                    format!("{group}: partition {partition} belongs to {owner} and to {member}, both in generation or epoch {generation}");
                self.conflict.get_or_insert(conflict);
            }
        }
    }

    /// A member of a consumer group says in a heartbeat what it has.
    pub fn reported(&mut self, group: &str, member: &str, has: &Partitions) {
        let held = self.held.entry((group.to_string(), member.to_string())).or_default();
        held.revoked.retain(|partition| has.contains(partition));
    }

    /// The coordinator answers a heartbeat: with an assignment where that is news.
    pub fn answered(&mut self, group: &str, member: &str, epoch: i32, assignment: Option<Partitions>) {
        let held = self.held.entry((group.to_string(), member.to_string())).or_default();
        if let Some(assigned) = assignment {
            held.revoked.extend(&held.assigned);
            held.revoked.retain(|partition| !assigned.contains(partition));
            held.assigned = assigned;
        }
        let owned = held.assigned.union(&held.revoked).copied().collect();
        self.assigned(group, member, epoch, &owned);
    }

    /// A member begins anew, or is gone: it has nothing.
    pub fn has_nothing(&mut self, group: &str, member: &str) {
        self.held.remove(&(group.to_string(), member.to_string()));
    }

    pub fn check(&self) {
        assert_eq!(self.conflict, None);
    }

    /// In how many generations or epochs of a group something was owned, and by how many members over all of them.
    pub fn seen(&self, group: &str) -> (usize, usize) {
        let of_group = || self.owners.iter().filter(|((of, ..), _)| of == group);
        let generations: BTreeSet<i32> = of_group().map(|((_, generation, _), _)| *generation).collect();
        let members: BTreeSet<&String> = of_group().map(|(_, member)| member).collect();
        (generations.len(), members.len())
    }
}

/// A checker that never objects proves nothing.
pub fn two_owners_are_noticed() {
    let partitions = |numbers: &[i32]| numbers.iter().copied().collect::<Partitions>();
    let mut classic = Owners::default();
    classic.assigned("classic", "one", 1, &partitions(&[0, 1, 2, 3]));
    classic.assigned("classic", "one", 2, &partitions(&[0, 1]));
    classic.assigned("classic", "two", 2, &partitions(&[2, 3]));
    // An answer that was lost is given again; another group is another matter.
    classic.assigned("classic", "two", 2, &partitions(&[2, 3]));
    classic.assigned("other", "three", 2, &partitions(&[2, 3]));
    assert_eq!((classic.conflict.as_ref(), classic.seen("classic")), (None, (2, 2)));
    classic.assigned("classic", "three", 2, &partitions(&[3]));
    assert!(classic.conflict.is_some(), "one generation, two owners");

    // Partition 1 goes from the first member to the second.
    let moved = |is_given_back: bool, is_gone: bool| {
        let mut consumer = Owners::default();
        consumer.answered("consumer", "one", 1, Some(partitions(&[0, 1])));
        consumer.reported("consumer", "one", &partitions(&[0, 1]));
        consumer.answered("consumer", "one", 1, Some(partitions(&[0])));
        if is_given_back {
            consumer.reported("consumer", "one", &partitions(&[0]));
        }
        if is_gone {
            consumer.has_nothing("consumer", "one");
        } else {
            consumer.answered("consumer", "one", 2, None);
        }
        consumer.answered("consumer", "two", 2, Some(partitions(&[1])));
        consumer.conflict
    };
    assert_eq!(moved(true, false), None, "given back, then given away");
    assert_eq!(moved(false, true), None, "the first is gone");
    assert!(moved(false, false).is_some(), "given away before it was given back");
}
