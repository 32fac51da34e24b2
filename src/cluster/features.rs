//! Finalised features (KIP-584): which levels this broker serves, and what a level of metadata.version allows to be written.
//!
//! One table says what is served. ApiVersions shows it, broker and controller register with it, a first start finalises from it, and a directory that has finalised more
//! is refused untouched, each feature named: opening it would mean not to understand what its clients were promised.

use std::fmt;

use super::image::Image;

pub const METADATA_VERSION: &str = "metadata.version";
pub const KRAFT_VERSION: &str = "kraft.version";
pub const ELR_VERSION: &str = "eligible.leader.replicas.version";
/// From 1 on, groups may use the consumer protocol (KIP-848).
pub const GROUP_VERSION: &str = "group.version";
/// 2: the end of a transaction raises its producer's epoch, and brokers register partitions themselves (KIP-890).
pub const TRANSACTION_VERSION: &str = "transaction.version";

/// From 1 on, there may be share groups (KIP-932).
pub const SHARE_VERSION: &str = "share.version";
/// 1: there may be streams groups (KIP-1071).
pub const STREAMS_VERSION: &str = "streams.version";

/// Features that allow groups of a kind which is not served. They do no harm where there is no such group.
pub const UNSERVED_GROUP_FEATURES: [&str; 2] = [SHARE_VERSION, STREAMS_VERSION];

/// A feature with the levels that this broker serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SupportedFeature {
    pub name: &'static str,
    pub level_min: i16,
    pub level_max: i16,
    /// What a first start finalises; 0 writes no record.
    pub level_fresh: i16,
    /// Up to where a level is left standing in a directory that has it; above `level_max` it only allows what nobody there has made use of.
    pub level_kept_max: i16,
}

impl SupportedFeature {
    const fn new(name: &'static str, level_min: i16, level_max: i16, level_fresh: i16) -> Self {
        Self { name, level_min, level_max, level_fresh, level_kept_max: level_max }
    }

    const fn kept(name: &'static str, level_kept_max: i16) -> Self {
        Self { name, level_min: 0, level_max: 0, level_fresh: 0, level_kept_max }
    }
}

/// All features of Kafka 4.4. A maximum of 0 means: known, not served yet. Directories may keep what Kafka has finalised by default. Kafka 4.4 itself goes up to group.version 1, share.version 2 and streams.version 1;
/// clients choose protocols by the finalised level, so a row rises only with what stands behind it.
pub const FEATURES: [SupportedFeature; 7] = [
    SupportedFeature::new(METADATA_VERSION, METADATA_VERSION_OLDEST.0, METADATA_VERSION_LATEST.0, METADATA_VERSION_LATEST.0),
    SupportedFeature::new(KRAFT_VERSION, 0, 1, 0),
    SupportedFeature::new(ELR_VERSION, 0, 1, 1),
    SupportedFeature::new(GROUP_VERSION, 0, 1, 1),
    SupportedFeature::kept(SHARE_VERSION, 2),
    SupportedFeature::kept(STREAMS_VERSION, 1),
    SupportedFeature::new(TRANSACTION_VERSION, 0, 2, 2),
];

const _: () = {
    let mut index = 0;
    while index < FEATURES.len() {
        let feature = FEATURES[index];
        assert!(feature.level_min <= feature.level_max && feature.level_fresh <= feature.level_max);
        index += 1;
    }
};

/// Whether clients hear of the feature. They choose protocols by its finalised level, also where a directory keeps one that is not served.
pub fn is_served(name: &str) -> bool {
    served_features().any(|feature| feature.name == name)
}

/// Features that are served at some level above 0: what ApiVersions and registrations name.
pub fn served_features() -> impl Iterator<Item = &'static SupportedFeature> {
    FEATURES.iter().filter(|feature| feature.level_max > 0)
}

/// Finalised levels of a picture that this broker cannot serve, in the order of their names.
pub fn unserved_features(image: &Image) -> Vec<UnservedFeature> {
    image.features().filter_map(|(name, level)| unserved_level(name, level)).collect()
}

fn unserved_level(name: &str, level: i16) -> Option<UnservedFeature> {
    let known = FEATURES.iter().find(|feature| feature.name == name);
    let is_open =
        known.is_some_and(|feature| (feature.level_min..=feature.level_kept_max).contains(&level)) || (known.is_none() && level == 0);
    let served = known.map_or((0, 0), |feature| (feature.level_min, feature.level_max));
    (!is_open).then(|| UnservedFeature { name: name.to_owned(), level, served })
}

/// A finalised feature beyond what is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedFeature {
    pub name: String,
    pub level: i16,
    /// Lowest and highest level that is served; (0, 0) also for a name that is not known.
    pub served: (i16, i16),
}

impl fmt::Display for UnservedFeature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, level, served: (min, max) } = self;
        write!(formatter, "{name} is finalised at {level}, this broker serves {min} to {max}")
    }
}

/// A level of metadata.version: it decides in which versions records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetadataVersion(pub i16);

/// 3.3-IV3, the oldest that Kafka 4.4 opens.
pub const METADATA_VERSION_OLDEST: MetadataVersion = MetadataVersion(7);
/// 4.4-IV2.
pub const METADATA_VERSION_LATEST: MetadataVersion = MetadataVersion(33);

impl MetadataVersion {
    /// KIP-868, from 3.6-IV1.
    pub fn has_transactions(self) -> bool {
        self >= MetadataVersion(13)
    }

    /// KIP-919, from 3.7-IV0.
    pub fn has_controller_registration(self) -> bool {
        self >= MetadataVersion(15)
    }

    /// KIP-858, from 3.7-IV2.
    pub fn has_directories(self) -> bool {
        self >= MetadataVersion(17)
    }

    /// KIP-966, from 4.0-IV1.
    pub fn has_eligible_leader_replicas(self) -> bool {
        self >= MetadataVersion(23)
    }

    /// KIP-1066, from 4.3-IV0.
    pub fn has_cordoned_directories(self) -> bool {
        self >= MetadataVersion(30)
    }

    pub fn register_broker_record_version(self) -> i16 {
        match self.0 {
            30.. => 4,
            17.. => 3,
            8.. => 2,
            _ => 1,
        }
    }

    /// PartitionRecord and PartitionChangeRecord have gone through the same versions.
    pub fn partition_record_version(self) -> i16 {
        if self.has_eligible_leader_replicas() {
            2
        } else if self.has_directories() {
            1
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::MetadataRecord;
    use crate::wire::Str;
    use crate::wire::records::FeatureLevelRecord;

    /// A directory as `kafka-storage format` leaves it: what is not served is named, what is served is not.
    #[test]
    fn unserved_levels_are_named() {
        let mut image = Image::empty();
        for (name, level) in [
            (METADATA_VERSION, 33),
            (TRANSACTION_VERSION, 3),
            (ELR_VERSION, 1),
            (SHARE_VERSION, 2),
            (STREAMS_VERSION, 2),
            ("tea.version", 1),
        ] {
            let record = MetadataRecord::from(FeatureLevelRecord { name: Str::from(name), feature_level: level, ..Default::default() });
            image.apply(&record).expect("applies");
        }
        let unserved: Vec<String> = unserved_features(&image).iter().map(ToString::to_string).collect();
        assert_eq!(
            unserved,
            [
                "streams.version is finalised at 2, this broker serves 0 to 0",
                "tea.version is finalised at 1, this broker serves 0 to 0",
                "transaction.version is finalised at 3, this broker serves 0 to 2"
            ]
        );
    }

    #[test]
    fn levels_outside_the_range_on_either_side_are_unserved() {
        assert!(unserved_level(METADATA_VERSION, 6).is_some());
        assert!(unserved_level(METADATA_VERSION, 7).is_none());
        assert!(unserved_level(METADATA_VERSION, 34).is_some());
    }

    #[test]
    fn record_versions_rise_with_the_level() {
        let versions = [7, 8, 16, 17, 23, 30, 33].map(|level| {
            let level = MetadataVersion(level);
            (level.register_broker_record_version(), level.partition_record_version())
        });
        assert_eq!(versions, [(1, 0), (2, 0), (2, 0), (3, 1), (3, 2), (4, 2), (4, 2)]);
    }
}
