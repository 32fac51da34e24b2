//! Where the replicas of new partitions go: striped over racks, then over the brokers of a rack, so that leaders and replicas spread evenly.
//!
//! The rules are those of Kafka's StripedReplicaPlacer. Racks and brokers are walked from a random start. The first replica, which will lead, is on a broker that is not
//! fenced; each further one is taken from the next rack, brokers that are not fenced first. The start moves on by one with each partition, and once every start was used the
//! order is shuffled, so that the same sets of brokers do not come back together.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::image::{BrokerImage, Image, ReplicaSet};

/// Chance, as an argument: a seed in tests, the kernel's in service.
pub trait Randomness {
    /// A number below `bound`, which is at least 1.
    fn below(&mut self, bound: usize) -> usize;
    /// A random (version 4) id.
    fn uuid(&mut self) -> uuid::Uuid;
}

/// A set of brokers for each of `partitions` new partitions. The error is the sentence that INVALID_REPLICATION_FACTOR carries.
pub fn place(image: &Image, partitions: usize, replication_factor: i16, random: &mut dyn Randomness) -> Result<Vec<ReplicaSet>, String> {
    let brokers: Vec<&Arc<BrokerImage>> = image.brokers().filter(|broker| broker.has_usable_directory()).collect();
    let unfenced_count = brokers.iter().filter(|broker| !broker.fenced).count();
    let factor = usize::try_from(replication_factor).ok().filter(|factor| *factor > 0);
    let factor =
        factor.ok_or_else(|| format!("Invalid replication factor {replication_factor}: the replication factor must be positive."))?;
    if unfenced_count == 0 {
        return Err("All brokers are currently fenced, or have all their log directories cordoned.".to_owned());
    }
    if factor > brokers.len() {
        return Err(format!(
            "The target replication factor of {factor} cannot be reached because only {} broker(s) are registered or some brokers have all their \
             log directories cordoned.",
            brokers.len()
        ));
    }
    let mut stripes = Stripes::new(&brokers, unfenced_count, random);
    Ok((0..partitions).map(|_| stripes.next_set(factor, random)).collect())
}

/// Brokers of one rack.
#[derive(Default)]
struct Rack {
    unfenced: Ring,
    fenced: Ring,
}

/// Broker ids that are walked in a circle, from a start that moves on by one for each partition.
#[derive(Default)]
struct Ring {
    ids: Vec<i32>,
    start: usize,
    taken: usize,
}

impl Ring {
    fn next(&mut self) -> Option<i32> {
        let id = (self.taken < self.ids.len()).then(|| self.ids[(self.start + self.taken) % self.ids.len()])?;
        self.taken += 1;
        Some(id)
    }

    fn begin_partition(&mut self) {
        self.taken = 0;
        if !self.ids.is_empty() {
            self.start = (self.start + 1) % self.ids.len();
        }
    }
}

struct Stripes {
    racks: Vec<Rack>,
    rack_start: usize,
    unfenced_count: usize,
    /// Partitions since the order was last shuffled.
    since_shuffle: usize,
}

impl Stripes {
    fn new(brokers: &[&Arc<BrokerImage>], unfenced_count: usize, random: &mut dyn Randomness) -> Self {
        let mut by_rack: BTreeMap<Option<&str>, Rack> = BTreeMap::new();
        for broker in brokers {
            let rack = by_rack.entry(broker.rack.as_deref()).or_default();
            let ring = if broker.fenced { &mut rack.fenced } else { &mut rack.unfenced };
            ring.ids.push(broker.id);
        }
        let mut racks: Vec<Rack> = by_rack.into_values().collect();
        for ring in racks.iter_mut().flat_map(|rack| [&mut rack.unfenced, &mut rack.fenced]).filter(|ring| !ring.ids.is_empty()) {
            ring.start = random.below(ring.ids.len());
        }
        let rack_start = random.below(racks.len());
        Self { racks, rack_start, unfenced_count, since_shuffle: 0 }
    }

    /// `factor` different brokers, at most as many as there are.
    fn next_set(&mut self, factor: usize, random: &mut dyn Randomness) -> ReplicaSet {
        self.begin_partition(random);
        let rack_count = self.racks.len();
        let leader_rack = (0..rack_count)
            .map(|step| (self.rack_start + step) % rack_count)
            .find(|rack| !self.racks[*rack].unfenced.ids.is_empty())
            .expect("a broker is not fenced");
        let mut replicas = ReplicaSet::new();
        replicas.push(self.racks[leader_rack].unfenced.next().expect("nothing was taken from it yet"));

        // The leader's rack has given its share of the first round.
        let mut skipped = Some(leader_rack);
        let mut rack = self.rack_start;
        while replicas.len() < factor {
            if skipped == Some(rack) {
                skipped = None;
            } else {
                let candidates = &mut self.racks[rack];
                replicas.extend(candidates.unfenced.next().or_else(|| candidates.fenced.next()));
            }
            rack = (rack + 1) % rack_count;
        }
        self.rack_start = (self.rack_start + 1) % rack_count;
        replicas
    }

    fn begin_partition(&mut self, random: &mut dyn Randomness) {
        if self.since_shuffle == self.unfenced_count {
            self.since_shuffle = 0;
            shuffle(&mut self.racks, random);
            for rack in &mut self.racks {
                shuffle(&mut rack.unfenced.ids, random);
                shuffle(&mut rack.fenced.ids, random);
            }
        }
        self.since_shuffle += 1;
        for rack in &mut self.racks {
            rack.unfenced.begin_partition();
            rack.fenced.begin_partition();
        }
    }
}

/// Fisher and Yates.
fn shuffle<T>(items: &mut [T], random: &mut dyn Randomness) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last + 1));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use uuid::Uuid;

    use super::*;
    use crate::cluster::record::MetadataRecord;
    use crate::wire::Str;
    use crate::wire::records::RegisterBrokerRecord;

    /// Chance from a counter (xorshift): the same in every run.
    pub struct Seeded(pub u64);

    impl Randomness for Seeded {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }

        fn uuid(&mut self) -> Uuid {
            let high = self.below(1 << 40) as u64;
            Uuid::from_u64_pair(high, 1 + self.below(1 << 40) as u64)
        }
    }

    /// `(id, rack, fenced)` of each broker.
    pub fn image_of_brokers(brokers: &[(i32, Option<&str>, bool)]) -> Image {
        let mut image = Image::empty();
        for (id, rack, fenced) in brokers {
            let record = RegisterBrokerRecord {
                broker_id: *id,
                rack: rack.map(Str::from),
                fenced: *fenced,
                log_dirs: vec![Uuid::from_u128(*id as u128 + 1000)],
                ..Default::default()
            };
            image.apply(&MetadataRecord::from(record)).expect("applies");
        }
        image
    }

    #[test]
    fn one_broker_holds_everything() {
        let image = image_of_brokers(&[(7, None, false)]);
        let sets = place(&image, 3, 1, &mut Seeded(1)).expect("placed");
        assert!(sets.iter().all(|set| set[..] == [7]), "{sets:?}");
    }

    /// Six brokers in three racks: the three replicas of a partition are always in three racks, and leaders are spread evenly.
    #[test]
    fn replicas_are_spread_over_racks() {
        let brokers: Vec<_> = (0..6).map(|id| (id, Some(["a", "b", "c"][id as usize % 3]), false)).collect();
        let image = image_of_brokers(&brokers);
        let sets = place(&image, 600, 3, &mut Seeded(3)).expect("placed");
        let mut leaders = [0; 6];
        for set in &sets {
            let racks: BTreeSet<i32> = set.iter().map(|id| id % 3).collect();
            assert_eq!(racks.len(), 3, "{set:?}");
            leaders[set[0] as usize] += 1;
        }
        assert!(leaders.iter().all(|count| (50..150).contains(count)), "{leaders:?}");
    }

    /// A fenced broker never leads, and holds a replica only where the others do not suffice.
    #[test]
    fn fenced_brokers_come_last() {
        let image = image_of_brokers(&[(1, None, false), (2, None, true), (3, None, false)]);
        for set in place(&image, 50, 2, &mut Seeded(5)).expect("placed") {
            assert!(!set.contains(&2), "{set:?}");
        }
        for set in place(&image, 50, 3, &mut Seeded(5)).expect("placed") {
            assert_eq!(set[2], 2, "{set:?}");
        }
    }

    /// The sentences are those of Kafka 4.4.0.
    #[test]
    fn what_cannot_be_placed_says_why() {
        let image = image_of_brokers(&[(1, None, false)]);
        let error = place(&image, 1, 2, &mut Seeded(1)).expect_err("one broker");
        assert_eq!(
            error,
            "The target replication factor of 2 cannot be reached because only 1 broker(s) are registered or some brokers have all their log directories cordoned."
        );
        let fenced = image_of_brokers(&[(1, None, true)]);
        let error = place(&fenced, 1, 1, &mut Seeded(1)).expect_err("fenced");
        assert_eq!(error, "All brokers are currently fenced, or have all their log directories cordoned.");
    }
}
