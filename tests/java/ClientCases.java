import static java.util.concurrent.TimeUnit.SECONDS;

import com.fasterxml.jackson.databind.JsonNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.DescribeReplicaLogDirsResult;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionReplica;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidRegularExpression;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.LogDirNotFoundException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnreleasedInstanceIdException;

/** What kafka-clients does in its main job; each method is a case, on a topic that no other case uses. */
final class ClientCases extends Cases {
    private static final Map<String, String> CONSUMER_PROTOCOL = Map.of("group.protocol", "consumer");

    ClientCases(String bootstrap, String topic, JsonNode expected) {
        super(bootstrap, topic, expected);
    }

    void codecNone() throws Exception {
        roundTrip("none");
    }

    void codecGzip() throws Exception {
        roundTrip("gzip");
    }

    void codecSnappy() throws Exception {
        roundTrip("snappy");
    }

    void codecLz4() throws Exception {
        roundTrip("lz4");
    }

    void codecZstd() throws Exception {
        roundTrip("zstd");
    }

    /** What is written over three partitions is read from each in order, with offsets that count from 0. */
    private void roundTrip(String codec) throws Exception {
        create(3, Map.of());
        List<Samples.Sample> samples = Samples.records(60);
        for (int partition = 0; partition < 3; partition++) {
            produce(samples, partition, Map.of("compression.type", codec));
        }
        for (int partition = 0; partition < 3; partition++) {
            List<ConsumerRecord<byte[], byte[]>> got = consume(partition, 0, samples.size());
            Samples.same(got, samples);
            for (int position = 0; position < got.size(); position++) {
                Samples.equal(got.get(position).offset(), (long) position, "offset");
            }
        }
    }

    /** A missing key or value stays missing, an empty one stays empty. */
    void tombstonesAndEmptyValues() throws Exception {
        create(1, Map.of());
        produce(Samples.oddRecords(), 0, Map.of());
        Samples.same(consume(0, 0, Samples.oddRecords().size()), Samples.oddRecords());
    }

    /** Headers come back in order, with repeated keys, empty and missing values. */
    void headers() throws Exception {
        create(1, Map.of());
        List<Samples.Sample> samples = List.of(new Samples.Sample(Samples.bytes("k"), Samples.bytes("v"), Samples.headersOfEveryKind()), new Samples.Sample("k", new byte[1]));
        produce(samples, 0, Map.of("compression.type", "gzip"));
        Samples.same(consume(0, 0, 2), samples);
    }

    /** Values of 1 MiB pass where the topic allows them, compressed or not, between small ones. */
    void oneMibRecords() throws Exception {
        create(1, Map.of("max.message.bytes", "4194304"));
        byte[] large = new byte[1 << 20];
        for (int position = 0; position < large.length; position++) {
            large[position] = (byte) (position * 7919 % 251);
        }
        List<Samples.Sample> samples = List.of(new Samples.Sample("small", Samples.bytes("before")), new Samples.Sample("large", large),
            new Samples.Sample("small", Samples.bytes("between")), new Samples.Sample("large", large), new Samples.Sample("small", Samples.bytes("after")));
        List<Samples.Sample> all = new ArrayList<>();
        for (String codec : List.of("none", "lz4", "zstd")) {
            produce(samples, 0, Map.of("compression.type", codec));
            all.addAll(samples);
        }
        Samples.same(consume(0, 0, all.size()), all);
    }

    /** A record above max.message.bytes is refused by name and leaves nothing behind. */
    void recordTooLarge() throws Exception {
        create(1, Map.of("max.message.bytes", "1000"));
        fails(RecordTooLargeException.class, () -> produce(List.of(new Samples.Sample("k", new byte[5000])), 0, Map.of()));
        produce(List.of(new Samples.Sample("k", new byte[5])), 0, Map.of());
        Samples.equal(endOffset(0), 1L, "end offset");
    }

    /** Records sent with acks 0, 1 and all are there. */
    void acksOfEveryKind() throws Exception {
        create(1, Map.of());
        List<Samples.Sample> samples = Samples.records(12);
        produce(samples.subList(0, 4), 0, Map.of("acks", "0", "enable.idempotence", "false"));
        Samples.until("records sent with acks=0", () -> endOffset(0) == 4);
        produce(samples.subList(4, 8), 0, Map.of("acks", "1", "enable.idempotence", "false"));
        produce(samples.subList(8, 12), 0, Map.of("acks", "all"));
        Samples.same(consume(0, 0, 12), samples);
    }

    /** Five batches of an idempotent producer in flight, many times over, arrive once and in order. */
    void idempotentProducer() throws Exception {
        create(1, Map.of());
        List<Samples.Sample> samples = Samples.records(2000);
        produce(samples, 0, Map.of("enable.idempotence", "true", "linger.ms", "0", "batch.size", "4096", "max.in.flight.requests.per.connection", "5"));
        Samples.same(consume(0, 0, samples.size()), samples);
    }

    /** Producing to a topic that does not exist makes it. */
    void topicMadeByItsFirstUse() throws Exception {
        List<Samples.Sample> samples = Samples.records(3);
        produce(samples, 0, Map.of());
        Samples.same(consume(0, 0, 3), samples);
    }

    /** A reader begins where it is told, in the middle of a compressed batch too. */
    void readingFromThePast() throws Exception {
        create(1, Map.of());
        List<Samples.Sample> samples = Samples.records(50);
        produce(samples, 0, Map.of("compression.type", "lz4", "linger.ms", "100"));
        for (int start : new int[] {0, 1, 17, 49}) {
            List<ConsumerRecord<byte[], byte[]>> got = consume(0, start, 50 - start);
            Samples.same(got, samples.subList(start, 50));
            Samples.equal(got.get(0).offset(), (long) start, "first offset");
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            TopicPartition place = new TopicPartition(topic, 0);
            Samples.equal(consumer.beginningOffsets(Set.of(place)), Map.of(place, 0L), "beginning");
            Samples.equal(consumer.endOffsets(Set.of(place)), Map.of(place, 50L), "end");
        }
    }

    /** The offset for a time is that of the first record at or after it, inside a compressed batch too. */
    void timestampsLookup() throws Exception {
        create(1, Map.of());
        long base = System.currentTimeMillis() - 100_000;
        for (String codec : List.of("none", "zstd")) {
            try (KafkaProducer<byte[], byte[]> producer = producer(Map.of("compression.type", codec, "linger.ms", "100"))) {
                for (int index = 0; index < 10; index++) {
                    long timestamp = base + (codec.equals("none") ? index : index + 10) * 1000;
                    producer.send(new ProducerRecord<>(topic, 0, timestamp, null, Samples.bytes("v")));
                }
            }
        }
        TopicPartition place = new TopicPartition(topic, 0);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            for (long[] asked : new long[][] {{-1, 0}, {0, 0}, {1, 1}, {4000, 4}, {12_500, 13}, {19_000, 19}, {19_001, -1}}) {
                OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(place, base + asked[0])).get(place);
                Samples.equal(found == null ? -1 : found.offset(), asked[1], "offset for " + asked[0]);
            }
        }
    }

    /** Three members of a classic group share six partitions; when one leaves the others take over; every record arrives. */
    void groupOfThree() throws Exception {
        groupOfThree("org.apache.kafka.clients.consumer.RangeAssignor");
    }

    /** The same with cooperative rebalancing, where members keep what they have while others join. */
    void cooperativeGroupOfThree() throws Exception {
        groupOfThree("org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
    }

    /** The same by the consumer protocol (KIP-848), where the broker assigns. */
    void consumerProtocolGroupOfThree() throws Exception {
        groupOfThree(CONSUMER_PROTOCOL);
        Samples.equal(groupType(), GroupType.CONSUMER, "type");
    }

    private void groupOfThree(String assignor) throws Exception {
        groupOfThree(Map.of("partition.assignment.strategy", assignor));
    }

    private void groupOfThree(Map<String, String> settings) throws Exception {
        create(6, Map.of());
        try (Members members = new Members()) {
            for (int index = 0; index < 3; index++) {
                members.add(new Member(settings));
            }
            Samples.until("three members with two partitions each", () -> shares(members).equals(List.of(2, 2, 2)));
            produceEverywhere("first");
            Samples.until("the records of the first round", () -> received(members).containsAll(keys("first")));
            members.remove(0).leave();
            Samples.until("two members with three partitions each", () -> shares(members).equals(List.of(3, 3)));
            produceEverywhere("second");
            Samples.until("the records of the second round", () -> received(members).containsAll(keys("second")));
        }
    }

    private void produceEverywhere(String round) throws Exception {
        for (int partition = 0; partition < 6; partition++) {
            produce(List.of(new Samples.Sample(round + "-" + partition, new byte[10])), partition, Map.of());
        }
    }

    private static Set<String> keys(String round) {
        Set<String> keys = new TreeSet<>();
        for (int partition = 0; partition < 6; partition++) {
            keys.add(round + "-" + partition);
        }
        return keys;
    }

    private static List<Integer> shares(List<Member> members) {
        return members.stream().map(member -> member.assigned).sorted().toList();
    }

    private static Set<String> received(List<Member> members) {
        Set<String> all = new TreeSet<>();
        for (Member member : members) {
            synchronized (member.keys) {
                all.addAll(member.keys);
            }
        }
        return all;
    }

    /** A member of the case's group in a thread of its own, as an application would run it. */
    private final class Member {
        final Set<String> keys = new TreeSet<>();
        volatile int assigned;
        private volatile boolean leaving;
        private volatile Throwable failure;
        private final Thread thread;

        Member(Map<String, String> settings) {
            KafkaConsumer<byte[], byte[]> consumer = subscriber(settings);
            thread = new Thread(() -> run(consumer));
            thread.start();
        }

        private void run(KafkaConsumer<byte[], byte[]> consumer) {
            try (consumer) {
                while (!leaving) {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                        synchronized (keys) {
                            keys.add(new String(record.key()));
                        }
                    }
                    assigned = consumer.assignment().size();
                }
            } catch (Throwable thrown) {
                failure = thrown;
            }
        }

        void leave() throws InterruptedException {
            leaving = true;
            thread.join(60_000);
            if (failure != null) {
                throw new AssertionError("a member failed", failure);
            }
        }
    }

    /** Members that all leave in the end, whatever happens. */
    private static final class Members extends ArrayList<Member> implements AutoCloseable {
        @Override
        public void close() throws InterruptedException {
            for (Member member : this) {
                member.leave();
            }
        }
    }

    /** What a member committed is where the next one begins. */
    void commitAndResume() throws Exception {
        create(1, Map.of());
        List<Samples.Sample> samples = Samples.records(30);
        produce(samples, 0, Map.of());
        TopicPartition place = new TopicPartition(topic, 0);
        try (KafkaConsumer<byte[], byte[]> first = subscriber(Map.of())) {
            read(first, 30);
            first.commitSync(Map.of(place, new OffsetAndMetadata(12, "half way")));
        }
        try (KafkaConsumer<byte[], byte[]> second = subscriber(Map.of())) {
            Samples.equal(second.committed(Set.of(place)).get(place).metadata(), "half way", "metadata");
            List<ConsumerRecord<byte[], byte[]>> got = read(second, 18);
            Samples.same(got, samples.subList(12, 30));
            second.commitAsync();
        }
        Samples.equal(admin.listConsumerGroupOffsets(group()).partitionsToOffsetAndMetadata().get(60, SECONDS).get(place).offset(), 30L, "committed");
    }

    /** A static member that comes back within its session keeps its partitions. */
    void staticMember() throws Exception {
        create(2, Map.of());
        Map<String, String> settings = Map.of("group.instance.id", "one", "session.timeout.ms", "30000");
        for (int round = 0; round < 2; round++) {
            try (KafkaConsumer<byte[], byte[]> member = subscriber(settings)) {
                produce(Samples.records(4), round, Map.of());
                read(member, 4);
                member.commitSync();
                Samples.equal(member.groupMetadata().generationId(), 1, "generation");
                member.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
            }
        }
    }

    /** A member that subscribes by a regular expression of the broker's reads topics that are made later, and no others. */
    void consumerProtocolRegex() throws Exception {
        create(2, Map.of());
        try (KafkaConsumer<byte[], byte[]> member = subscriber(CONSUMER_PROTOCOL)) {
            member.unsubscribe();
            member.subscribe(new SubscriptionPattern(topic + "(-[a-z]+)?"));
            produce(Samples.records(4), 1, Map.of());
            Samples.same(read(member, 4), Samples.records(4));
            create(new NewTopic(topic + "-later", 1, (short) 1));
            create(new NewTopic(topic + "-NOT", 1, (short) 1));
            Set<TopicPartition> wanted = Set.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1), new TopicPartition(topic + "-later", 0));
            Samples.until("the new topic's partition", () -> {
                member.poll(Duration.ofMillis(200));
                return member.assignment().equals(wanted);
            });
            member.subscribe(new SubscriptionPattern("("));
            try {
                for (int round = 0; round < 50; round++) {
                    member.poll(Duration.ofMillis(200));
                }
                throw new AssertionError("the expression was taken");
            } catch (InvalidRegularExpression expected) {
                // As it should be.
            }
        }
    }

    /** A static member of the consumer protocol keeps its place while it is away, and nobody else gets in under its name. */
    void consumerProtocolStaticMember() throws Exception {
        create(2, Map.of());
        Map<String, String> settings = new HashMap<>(CONSUMER_PROTOCOL);
        settings.put("group.instance.id", "one");
        int epoch = 0;
        for (int round = 0; round < 2; round++) {
            try (KafkaConsumer<byte[], byte[]> member = subscriber(settings)) {
                produce(Samples.records(4), round, Map.of());
                read(member, 4);
                member.commitSync();
                Samples.check(round == 0 || member.groupMetadata().generationId() == epoch, "the epoch is that of before");
                epoch = member.groupMetadata().generationId();
                try (KafkaConsumer<byte[], byte[]> intruder = subscriber(settings)) {
                    for (int patience = 0; patience < 50; patience++) {
                        intruder.poll(Duration.ofMillis(200));
                    }
                    throw new AssertionError("two members of one name");
                } catch (UnreleasedInstanceIdException expected) {
                    // As it should be.
                }
                member.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
            }
        }
    }

    /** A member hears what it loses before anybody else gets it, and what it commits then is where the other goes on. */
    void consumerProtocolListeners() throws Exception {
        create(2, Map.of());
        produceTo(2, "first");
        Set<TopicPartition> revoked = new HashSet<>();
        Set<TopicPartition> assigned = new HashSet<>();
        try (KafkaConsumer<byte[], byte[]> first = subscriber(CONSUMER_PROTOCOL)) {
            first.subscribe(Set.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> lost) {
                    revoked.addAll(lost);
                    first.commitSync();
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> gained) {
                    assigned.addAll(gained);
                }
            });
            read(first, 2);
            Samples.equal(assigned.size(), 2, "partitions assigned");
            Member second = new Member(CONSUMER_PROTOCOL);
            Samples.until("one partition each", () -> {
                first.poll(Duration.ofMillis(200));
                return first.assignment().size() == 1 && second.assigned == 1;
            });
            Samples.equal(revoked.size(), 1, "partitions revoked");
            produceTo(2, "second");
            Samples.until("the record behind the commit", () -> received(List.of(second)).size() == 1);
            Samples.check(received(List.of(second)).iterator().next().startsWith("second"), "nothing is read twice");
            second.leave();
        }
    }

    /** A group goes from the classic protocol to the consumer protocol member by member, and back, under traffic. */
    void groupOfTwoProtocols() throws Exception {
        create(6, Map.of());
        try (Members members = new Members()) {
            members.add(new Member(Map.of("partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor")));
            Samples.until("all partitions", () -> shares(members).equals(List.of(6)));
            Samples.equal(groupType(), GroupType.CLASSIC, "type");
            members.add(new Member(CONSUMER_PROTOCOL));
            Samples.until("two members with three partitions each", () -> shares(members).equals(List.of(3, 3)));
            Samples.equal(groupType(), GroupType.CONSUMER, "type");
            members.add(new Member(Map.of()));
            Samples.until("three members with two partitions each", () -> shares(members).equals(List.of(2, 2, 2)));
            produceEverywhere("mixed");
            Samples.until("the records", () -> received(members).containsAll(keys("mixed")));
            members.remove(2).leave();
            members.remove(1).leave();
            Samples.until("all partitions again", () -> shares(members).equals(List.of(6)));
            Samples.until("a classic group", () -> groupType() == GroupType.CLASSIC);
            produceEverywhere("after");
            Samples.until("the records after", () -> received(members).containsAll(keys("after")));
        }
    }

    /** Settings of one group: what its members are told, within the broker's bounds. */
    void groupConfigs() throws Exception {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.GROUP, group());
        Samples.equal(value(admin.describeConfigs(Set.of(resource)).all()).get(resource).get("consumer.heartbeat.interval.ms").value(), "300", "default");
        alter(resource, "consumer.heartbeat.interval.ms", "700", AlterConfigOp.OpType.SET);
        Samples.until("the changed setting",
            () -> value(admin.describeConfigs(Set.of(resource)).all()).get(resource).get("consumer.heartbeat.interval.ms").value().equals("700"));
        fails(InvalidConfigurationException.class, () -> alter(resource, "consumer.heartbeat.interval.ms", "99", AlterConfigOp.OpType.SET));
        alter(resource, "consumer.heartbeat.interval.ms", null, AlterConfigOp.OpType.DELETE);
    }

    /** A member that does not poll any more is out: another one takes over, and what it commits then is refused. When it polls again it is a member again. */
    void memberThatStopsPolling() throws Exception {
        memberThatStopsPolling(Map.of());
    }

    void consumerProtocolMemberThatStopsPolling() throws Exception {
        memberThatStopsPolling(CONSUMER_PROTOCOL);
    }

    private void memberThatStopsPolling(Map<String, String> settings) throws Exception {
        create(2, Map.of());
        produceTo(2, "first");
        Map<String, String> impatient = new HashMap<>(settings);
        impatient.put("max.poll.interval.ms", "3000");
        try (KafkaConsumer<byte[], byte[]> silent = subscriber(impatient)) {
            read(silent, 2);
            Member other = new Member(settings);
            Samples.until("the other one to take over", () -> other.assigned == 2);
            try {
                // By name: what it had may have been taken from it by now.
                silent.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(1)));
                throw new AssertionError("a commit of one who is out");
            } catch (CommitFailedException expected) {
                // As it should be.
            }
            produceTo(2, "second");
            Samples.until("the records behind", () -> received(List.of(other)).stream().filter(key -> key.startsWith("second")).count() == 2);
            Samples.until("one partition each", () -> {
                silent.poll(Duration.ofMillis(200));
                return silent.assignment().size() == 1 && other.assigned == 1;
            });
            other.leave();
        }
    }

    /** Partitions that are added to a topic are shared out among those who read it, and their records arrive. */
    void partitionsAddedUnderASubscription() throws Exception {
        partitionsAddedUnderASubscription(Map.of());
    }

    void consumerProtocolPartitionsAdded() throws Exception {
        partitionsAddedUnderASubscription(CONSUMER_PROTOCOL);
    }

    private void partitionsAddedUnderASubscription(Map<String, String> settings) throws Exception {
        create(2, Map.of());
        try (Members members = new Members()) {
            members.add(new Member(settings));
            members.add(new Member(settings));
            Samples.until("one partition each", () -> shares(members).equals(List.of(1, 1)));
            admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(6))).all().get(60, SECONDS);
            Samples.until("three partitions each", () -> shares(members).equals(List.of(3, 3)));
            produceEverywhere("grown");
            Samples.until("the records", () -> received(members).containsAll(keys("grown")));
        }
    }

    /** A topic that is deleted and made again under those who read it: they go on with the new one, from its beginning. */
    void topicMadeAgainUnderASubscription() throws Exception {
        topicMadeAgainUnderASubscription(Map.of());
    }

    void consumerProtocolTopicMadeAgain() throws Exception {
        topicMadeAgainUnderASubscription(CONSUMER_PROTOCOL);
    }

    private void topicMadeAgainUnderASubscription(Map<String, String> settings) throws Exception {
        create(2, Map.of());
        for (int round = 0; round < 3; round++) {
            produceTo(2, "former-" + round);
        }
        // Who asks for the topic while it is gone is not to make it.
        Map<String, String> reading = new HashMap<>(settings);
        reading.put("allow.auto.create.topics", "false");
        Member member = new Member(reading);
        try {
            Samples.until("what is there", () -> received(List.of(member)).size() == 6);
            admin.deleteTopics(Set.of(topic)).all().get(60, SECONDS);
            Samples.until("the topic to be gone", () -> !topics().contains(topic));
            create(2, Map.of());
            produceTo(2, "latter");
            Samples.until("what is there now", () -> received(List.of(member)).stream().filter(key -> key.startsWith("latter")).count() == 2);
            Samples.equal(member.assigned, 2, "partitions");
        } finally {
            member.leave();
        }
    }

    private void produceTo(int partitions, String round) throws Exception {
        for (int partition = 0; partition < partitions; partition++) {
            produce(List.of(new Samples.Sample(round + "-" + partition, new byte[10])), partition, Map.of());
        }
    }

    private GroupType groupType() {
        return value(admin.listGroups().all()).stream().filter(listed -> listed.groupId().equals(group())).findFirst().flatMap(GroupListing::type).orElseThrow();
    }

    /** Topics are made, described, enlarged and deleted; what cannot be is refused by name. */
    void adminTopics() throws Exception {
        create(2, Map.of());
        Samples.equal(admin.describeTopics(Set.of(topic)).allTopicNames().get(60, SECONDS).get(topic).partitions().size(), 2, "partitions");
        fails(TopicExistsException.class, () -> create(1, Map.of()));
        fails(InvalidTopicException.class, () -> create(new NewTopic("no spaces", 1, (short) 1)));
        fails(InvalidPartitionsException.class, () -> create(new NewTopic(topic + "-none", 0, (short) 1)));
        fails(InvalidReplicationFactorException.class, () -> create(new NewTopic(topic + "-replicas", 1, (short) 3)));
        fails(InvalidConfigurationException.class, () -> create(new NewTopic(topic + "-config", 1, (short) 1).configs(Map.of("retention.ms", "soon"))));
        create(new NewTopic(topic + "-defaults", Optional.empty(), Optional.empty()));
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all().get(60, SECONDS);
        Samples.until("five partitions", () -> partitions() == 5);
        produce(Samples.records(2), 4, Map.of());
        Samples.same(consume(4, 0, 2), Samples.records(2));
        admin.deleteTopics(Set.of(topic)).all().get(60, SECONDS);
        Samples.until("the topic to be gone", () -> !topics().contains(topic));
    }

    /** Settings of a topic: defaults with their source, changed one by one, and reset. */
    void adminConfigs() throws Exception {
        create(1, Map.of("retention.ms", "86400000"));
        Config before = configs();
        Samples.equal(before.get("retention.ms").source(), ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "source");
        Samples.equal(before.get("segment.bytes").source(), ConfigEntry.ConfigSource.DEFAULT_CONFIG, "source");
        Samples.equal(before.get("flush.messages").value(), expected.get("flush-messages-default").asText(), "flush.messages");
        alter("segment.bytes", "16777216", AlterConfigOp.OpType.SET);
        Samples.until("the changed setting", () -> configs().get("segment.bytes").value().equals("16777216"));
        alter("cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
        Samples.until("the longer list", () -> configs().get("cleanup.policy").value().equals("delete,compact"));
        alter("retention.ms", null, AlterConfigOp.OpType.DELETE);
        Samples.until("the default again", () -> configs().get("retention.ms").value().equals("604800000"));
    }

    /** A group is listed and described while it lives; its offsets can be moved and it can be deleted once empty. */
    void adminGroups() throws Exception {
        create(2, Map.of());
        produce(Samples.records(10), 1, Map.of());
        try (KafkaConsumer<byte[], byte[]> member = subscriber(Map.of())) {
            read(member, 10);
            Samples.equal(groupState(), GroupState.STABLE, "state");
            Samples.check(admin.listGroups().all().get(60, SECONDS).stream().anyMatch(listed -> listed.groupId().equals(group())), "the group is listed");
            Samples.equal(admin.describeConsumerGroups(Set.of(group())).all().get(60, SECONDS).get(group()).members().size(), 1, "members");
        }
        Samples.until("an empty group", () -> groupState() == GroupState.EMPTY);
        TopicPartition place = new TopicPartition(topic, 1);
        admin.alterConsumerGroupOffsets(group(), Map.of(place, new OffsetAndMetadata(3))).all().get(60, SECONDS);
        Samples.equal(admin.listConsumerGroupOffsets(group()).partitionsToOffsetAndMetadata().get(60, SECONDS).get(place).offset(), 3L, "committed");
        admin.deleteConsumerGroupOffsets(group(), Set.of(place)).all().get(60, SECONDS);
        admin.alterConsumerGroupOffsets(group(), Map.of(place, new OffsetAndMetadata(4))).all().get(60, SECONDS);
        admin.deleteConsumerGroups(Set.of(group())).all().get(60, SECONDS);
        fails(GroupIdNotFoundException.class, () -> admin.deleteConsumerGroups(Set.of(group())).all().get(60, SECONDS));
    }

    /** Records below an offset are given up; the log begins there. */
    void deleteRecords() throws Exception {
        create(1, Map.of());
        produce(Samples.records(20), 0, Map.of());
        TopicPartition place = new TopicPartition(topic, 0);
        long low = admin.deleteRecords(Map.of(place, RecordsToDelete.beforeOffset(8))).lowWatermarks().get(place).get(60, SECONDS).lowWatermark();
        Samples.equal(low, 8L, "low watermark");
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of("auto.offset.reset", "earliest"))) {
            consumer.assign(Set.of(place));
            consumer.seekToBeginning(Set.of(place));
            List<ConsumerRecord<byte[], byte[]>> got = read(consumer, 12);
            Samples.equal(got.get(0).offset(), 8L, "first offset");
        }
    }

    /** The cluster names itself, its one broker and its controller. */
    void describeCluster() throws Exception {
        var described = admin.describeCluster();
        Samples.check(!described.clusterId().get(60, SECONDS).isEmpty(), "a cluster id");
        Samples.equal(described.nodes().get(60, SECONDS).size(), 1, "nodes");
        Samples.equal(described.controller().get(60, SECONDS), described.nodes().get().iterator().next(), "controller");
    }

    /** A replica moves to the broker's other data directory: the Admin's calls as kafka-reassign-partitions makes them. */
    void replicaLogDirs() throws Exception {
        create(1, Map.of());
        produce(Samples.records(50), 0, Map.of());
        TopicPartitionReplica replica = new TopicPartitionReplica(topic, 0, 1);
        String here = replicaInfo(replica).getCurrentReplicaLogDir();
        var directories = admin.describeLogDirs(List.of(1)).allDescriptions().get(60, SECONDS).get(1).keySet();
        Samples.equal(directories.size(), 2, "data directories");
        String there = directories.stream().filter(directory -> !directory.equals(here)).findFirst().get();
        fails(LogDirNotFoundException.class, () -> admin.alterReplicaLogDirs(Map.of(replica, here + "/none")).all().get(60, SECONDS));
        admin.alterReplicaLogDirs(Map.of(replica, there)).all().get(60, SECONDS);
        Samples.until("the replica to arrive", () -> {
            try {
                var info = replicaInfo(replica);
                return there.equals(info.getCurrentReplicaLogDir()) && info.getFutureReplicaLogDir() == null;
            } catch (Exception failure) {
                throw new IllegalStateException(failure);
            }
        });
        Samples.same(consume(0, 0, 50), Samples.records(50));
    }

    private DescribeReplicaLogDirsResult.ReplicaLogDirInfo replicaInfo(TopicPartitionReplica replica) throws Exception {
        return admin.describeReplicaLogDirs(List.of(replica)).all().get(60, SECONDS).get(replica);
    }

    private interface Action {
        void run() throws Exception;
    }

    private static void fails(Class<? extends Exception> expected, Action action) throws Exception {
        try {
            action.run();
        } catch (ExecutionException wrapped) {
            Samples.check(expected.isInstance(wrapped.getCause()), wrapped.getCause() + " instead of " + expected.getSimpleName());
            return;
        }
        throw new AssertionError("success instead of " + expected.getSimpleName());
    }

    private Set<String> topics() {
        return value(admin.listTopics().names());
    }

    private int partitions() {
        return value(admin.describeTopics(Set.of(topic)).allTopicNames()).get(topic).partitions().size();
    }

    private Config configs() {
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        return value(admin.describeConfigs(Set.of(resource)).all()).get(resource);
    }

    private void alter(String key, String value, AlterConfigOp.OpType operation) throws Exception {
        alter(new ConfigResource(ConfigResource.Type.TOPIC, topic), key, value, operation);
    }

    private void alter(ConfigResource resource, String key, String value, AlterConfigOp.OpType operation) throws Exception {
        Collection<AlterConfigOp> operations = Set.of(new AlterConfigOp(new ConfigEntry(key, value), operation));
        admin.incrementalAlterConfigs(Map.of(resource, operations)).all().get(60, SECONDS);
    }

    private GroupState groupState() {
        return value(admin.describeConsumerGroups(Set.of(group())).all()).get(group()).groupState();
    }

    private long endOffset(int partition) {
        TopicPartition place = new TopicPartition(topic, partition);
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            return consumer.endOffsets(Set.of(place)).get(place);
        }
    }
}
