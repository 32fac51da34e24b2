//! Groups of a kind that this broker does not serve, looked for in a directory before it is touched.
//!
//! A directory that Apache Kafka formats finalises share and streams groups, whether anybody uses them or not. Without such a group nothing is lost by opening it here: clients are not
//! told of the two features, and Kafka finds them as they were. With one, its members would find nobody who knows them, so the directory stays closed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;

use super::metadata_files::{MetadataFilesError, read_file_blocking, segments_from_blocking};
use crate::cluster::Image;
use crate::cluster::features::UNSERVED_GROUP_FEATURES;
use crate::disk::directories::find_partitions_blocking;
use crate::group::{OFFSETS_TOPIC, unserved_group};
use crate::wire::batch::{BatchIterator, HEADER_BYTES, RecordIterator, decompress_all};

/// A coordinator's batch gives less than this.
const BATCH_BYTES_MAX: usize = 256 << 20;

/// Groups that are named; a person who reads of ten knows enough.
const NAMED_MAX: usize = 10;

/// By the group's id: the feature that it would need.
type UnservedGroups = BTreeMap<String, &'static str>;

/// Why the groups in these directories keep them from being served, one sentence each. Where no feature allows such groups nothing is read.
pub fn reasons_against_groups_blocking(image: &Image, directories: &[PathBuf]) -> Result<Vec<String>, MetadataFilesError> {
    if !UNSERVED_GROUP_FEATURES.iter().any(|feature| image.feature_level(feature) > 0) {
        return Ok(Vec::new());
    }
    let groups = find_blocking(directories)?;
    let reason = |(group, feature): (&String, &&str)| {
        format!(
            "feature {feature} is finalised at {} and group {group} needs it, which this broker does not serve",
            image.feature_level(feature)
        )
    };
    Ok(groups.iter().map(reason).take(NAMED_MAX).collect())
}

/// Reads the offsets topic in all of the directories. What of it is damaged, or cut short by a crash, is left to recovery.
fn find_blocking(directories: &[PathBuf]) -> Result<UnservedGroups, MetadataFilesError> {
    let mut groups = UnservedGroups::new();
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        let found = find_partitions_blocking(directory)?;
        for partition in found.partitions.iter().filter(|partition| partition.topic == OFFSETS_TOPIC) {
            for segment in segments_from_blocking(&partition.path, 0)? {
                take_in(read_file_blocking(&segment)?.unwrap_or_default(), &mut groups);
            }
        }
    }
    Ok(groups)
}

/// Follows the records of one segment: a group begins with its metadata and ends with their tombstone.
fn take_in(segment: Bytes, groups: &mut UnservedGroups) {
    let whole = BatchIterator::new(segment).map_while(Result::ok).filter(|(header, _)| !header.attributes.is_control());
    for (header, batch) in whole {
        let Some(records) =
            header.compression().ok().and_then(|codec| decompress_all(codec, batch.slice(HEADER_BYTES..), BATCH_BYTES_MAX).ok())
        else {
            continue;
        };
        for record in RecordIterator::new(&records, header.record_count).map_while(Result::ok) {
            let Some((feature, group)) = record.key.and_then(unserved_group) else { continue };
            match record.value {
                Some(_) => groups.insert(group.to_string(), feature),
                None => groups.remove(group.as_str()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch::{BatchBuilder, BatchOptions};
    use crate::wire::records::{ShareGroupMetadataKey, StreamsGroupMetadataKey};
    use crate::wire::{Str, encode_record_key};

    #[test]
    fn groups_are_found_until_their_tombstone() {
        let share =
            |name: &str| encode_record_key(&ShareGroupMetadataKey { group_id: Str::from(name), ..Default::default() }).expect("a key");
        let streams = encode_record_key(&StreamsGroupMetadataKey { group_id: Str::from("words"), ..Default::default() }).expect("a key");
        let segment = |records: &[(&[u8], Option<&[u8]>)]| {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            records.iter().for_each(|(key, value)| builder.push(Some(key), *value, 0, &[]));
            builder.build().expect("a batch")
        };
        let mut groups = UnservedGroups::new();
        take_in(segment(&[(&share("gone"), Some(b"v")), (&share("there"), Some(b"v")), (b"\0\x02\0\x01g", Some(b"v"))]), &mut groups);
        take_in(segment(&[(&share("gone"), None), (&streams, Some(b"v"))]), &mut groups);
        assert_eq!(
            groups.into_iter().collect::<Vec<_>>(),
            [("there".to_owned(), "share.version"), ("words".to_owned(), "streams.version")]
        );
    }
}
