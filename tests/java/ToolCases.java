import static java.util.concurrent.TimeUnit.SECONDS;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Kafka's own command line tools, as an operator types them; each method is a case, on a topic that no other case uses. */
final class ToolCases {
    private static final String TOPICS = "org.apache.kafka.tools.TopicCommand";
    private static final String CONFIGS = "kafka.admin.ConfigCommand";
    private static final String GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    private static final String OFFSETS = "org.apache.kafka.tools.GetOffsetShell";
    private static final String PRODUCER = "org.apache.kafka.tools.ConsoleProducer";
    private static final String CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer";

    private final String bootstrap;
    private final String topic;
    private final JsonNode expected;
    private final Tools tools;

    ToolCases(String bootstrap, String topic, JsonNode expected, Tools tools) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        this.expected = expected;
        this.tools = tools;
    }

    /** kafka-topics: create, list, describe, alter, delete. */
    void topics() throws Exception {
        holds(topics("--create", "--topic", topic, "--partitions", "2", "--replication-factor", "1", "--config", "retention.ms=1000"), "Created topic " + topic);
        holds(topics("--list"), topic);
        String described = topics("--describe", "--topic", topic);
        holds(described, "PartitionCount: 2");
        holds(described, "retention.ms=1000");
        holds(described, "Isr: ");
        holds(topics("--create", "--if-not-exists", "--topic", topic), "");
        Tools.Outcome again = tools.outcome("", TOPICS, "--bootstrap-server", bootstrap, "--create", "--topic", topic);
        Samples.equal(again.status(), 1, "status of a creation that fails");
        holds(again.output(), "already exists");
        topics("--alter", "--topic", topic, "--partitions", "4");
        Samples.until("four partitions", () -> quietly(() -> topics("--describe", "--topic", topic)).contains("PartitionCount: 4"));
        holds(topics("--describe", "--under-replicated-partitions"), "");
        topics("--delete", "--topic", topic);
        Samples.until("the topic to be gone", () -> !quietly(() -> topics("--list")).contains(topic));
    }

    /** kafka-configs: settings of a topic and of the broker. */
    void configs() throws Exception {
        topics("--create", "--topic", topic);
        holds(configs("--entity-type", "topics", "--entity-name", topic, "--alter", "--add-config", "segment.ms=5000,cleanup.policy=[compact,delete]"), "Completed updating");
        Samples.until("the new setting", () -> quietly(() -> configs("--entity-type", "topics", "--entity-name", topic, "--describe")).contains("segment.ms=5000"));
        String all = configs("--entity-type", "topics", "--entity-name", topic, "--describe", "--all");
        holds(all, "cleanup.policy=compact,delete");
        holds(all, "DEFAULT_CONFIG:log.index.interval.bytes=4096");
        holds(all, "flush.messages=" + expected.get("flush-messages-default").asText() + " ");
        holds(configs("--entity-type", "topics", "--entity-name", topic, "--alter", "--delete-config", "segment.ms"), "Completed updating");
        Samples.until("the default again", () -> !quietly(() -> configs("--entity-type", "topics", "--entity-name", topic, "--describe")).contains("segment.ms=5000"));
        holds(configs("--entity-type", "brokers", "--entity-name", "1", "--describe", "--all"), "num.partitions=1 ");
    }

    /** kafka-console-producer and kafka-console-consumer, with keys, headers and every codec. */
    void console() throws Exception {
        topics("--create", "--topic", topic);
        List<String> codecs = List.of("none", "gzip", "snappy", "lz4", "zstd");
        for (String codec : codecs) {
            tools.runWith("h:1\tkey-" + codec + "\tvalue-" + codec + "\n", PRODUCER, "--bootstrap-server", bootstrap, "--topic", topic, "--compression-codec", codec, "--reader-property",
                "parse.key=true", "--reader-property", "parse.headers=true");
        }
        String read = tools.run(CONSUMER, "--bootstrap-server", bootstrap, "--topic", topic, "--from-beginning", "--max-messages", "5", "--timeout-ms", "60000", "--formatter-property",
            "print.key=true", "--formatter-property", "print.headers=true", "--formatter-property", "print.offset=true");
        for (String codec : codecs) {
            holds(read, "Offset:" + codecs.indexOf(codec) + "\th:1\tkey-" + codec + "\tvalue-" + codec);
        }
    }

    /** kafka-consumer-groups: list, describe with lag, reset, delete. */
    void consumerGroups() throws Exception {
        topics("--create", "--topic", topic);
        tools.runWith("one\ntwo\nthree\n", PRODUCER, "--bootstrap-server", bootstrap, "--topic", topic);
        String group = topic + "-group";
        tools.run(CONSUMER, "--bootstrap-server", bootstrap, "--topic", topic, "--group", group, "--from-beginning", "--max-messages", "3", "--timeout-ms", "60000");
        tools.runWith("four\n", PRODUCER, "--bootstrap-server", bootstrap, "--topic", topic);
        Samples.until("the group to be empty", () -> quietly(() -> groups("--describe", "--group", group, "--state")).contains("Empty"));
        holds(groups("--list"), group);
        matches(groups("--describe", "--group", group), "(?s).*" + group + " +" + topic + " +0 +3 +4 +1 .*");
        holds(groups("--reset-offsets", "--group", group, "--topic", topic, "--to-offset", "1", "--execute"), topic);
        matches(groups("--describe", "--group", group), "(?s).*" + topic + " +0 +1 +4 +3 .*");
        holds(groups("--delete", "--group", group), "Deletion of requested consumer groups");
        Samples.check(!groups("--list").contains(group), "the group is gone");
    }

    /** kafka-get-offsets: by time and by name. */
    void getOffsets() throws Exception {
        topics("--create", "--topic", topic);
        tools.runWith("a\nb\nc\n", PRODUCER, "--bootstrap-server", bootstrap, "--topic", topic);
        holds(offsets("--topic", topic, "--time", "latest"), topic + ":0:3");
        for (String time : List.of("earliest", "0")) {
            holds(offsets("--topic-partitions", topic + ":0", "--time", time), topic + ":0:0");
        }
        holds(offsets("--topic", topic, "--time", "max-timestamp"), topic + ":0:");
    }

    /** Every way in which kafka-consumer-groups moves a group's offsets, tried and then done. */
    void resetOffsets() throws Exception {
        topics("--create", "--topic", topic, "--partitions", "2");
        long before = System.currentTimeMillis();
        tools.runWith("one\ntwo\nthree\nfour\n", PRODUCER, "--bootstrap-server", bootstrap, "--topic", topic, "--producer-property", "partitioner.ignore.keys=true");
        Samples.until("the records", () -> quietly(() -> offsets("--topic", topic, "--time", "latest")).chars().filter(digit -> digit == '4').count() > 0);
        String place = topic + ":0";
        long end = Long.parseLong(offsets("--topic-partitions", place, "--time", "latest").strip().replaceAll(".*:", ""));
        reset(0, "--topic", place, "--to-earliest");
        reset(end, "--topic", place, "--to-latest");
        reset(0, "--topic", place, "--shift-by", "-1000");
        reset(end, "--topic", place, "--to-offset", "1000");
        reset(0, "--topic", place, "--to-datetime", java.time.Instant.ofEpochMilli(before).toString().replace("Z", "").replaceAll("(\\.\\d{3})\\d*", "$1"));
        reset(0, "--topic", place, "--by-duration", "PT1H");
        reset(0, "--topic", place, "--to-current");
        reset(end, "--all-topics", "--to-latest");
        String group = topic + "-group";
        String exported = groups("--reset-offsets", "--group", group, "--topic", place, "--to-earliest", "--export", "--dry-run");
        Path file = Files.createTempFile("reset-offsets", ".csv");
        Files.writeString(file, exported.lines().filter(line -> line.contains(topic)).findFirst().orElseThrow() + "\n");
        reset(0, "--from-file", file.toString());
        Files.delete(file);
        holds(groups("--delete-offsets", "--group", group, "--topic", place), "Successful");
        Samples.check(!groups("--describe", "--group", group).contains(topic + " +0 "), "the offset is gone");
        holds(tools.outcome("", GROUPS, with("--delete-offsets", "--group", group + "-not", "--topic", topic)).output(), "does not exist");
    }

    /** Moves the case's group, and asserts where it stands; what is only tried moves nothing. */
    private void reset(long expected, String... how) throws Exception {
        String group = topic + "-group";
        String[] all = new String[how.length + 4];
        System.arraycopy(new String[] {"--reset-offsets", "--group", group}, 0, all, 0, 3);
        System.arraycopy(how, 0, all, 4, how.length);
        all[3] = "--dry-run";
        matches(groups(all), "(?s).*" + topic + " +0 +" + expected + "\\s.*");
        all[3] = "--execute";
        matches(groups(all), "(?s).*" + topic + " +0 +" + expected + "\\s.*");
        matches(groups("--describe", "--group", group), "(?s).*" + topic + " +0 +" + expected + " .*");
    }

    /** What kafka-consumer-groups, kafka-groups and kafka-configs show of a group of the consumer protocol. */
    void consumerProtocolGroup() throws Exception {
        topics("--create", "--topic", topic, "--partitions", "2");
        String group = topic + "-group";
        var settings = java.util.Map.<String, Object>of("bootstrap.servers", bootstrap, "group.id", group, "group.protocol", "consumer", "client.id", "tea");
        var bytes = new org.apache.kafka.common.serialization.ByteArrayDeserializer();
        try (var member = new org.apache.kafka.clients.consumer.KafkaConsumer<>(settings, bytes, bytes)) {
            member.subscribe(java.util.Set.of(topic));
            Samples.until("an assignment", () -> {
                member.poll(java.time.Duration.ofMillis(200));
                return member.assignment().size() == 2;
            });
            member.commitSync(java.util.Map.of(new org.apache.kafka.common.TopicPartition(topic, 0), new org.apache.kafka.clients.consumer.OffsetAndMetadata(0)));
            String id = "[A-Za-z0-9_-]{22}";
            matches(groups("--describe", "--group", group), "(?s).*" + group + " +" + topic + " +0 +0 +0 +0 +" + id + " +/127.0.0.1 +tea.*");
            matches(groups("--describe", "--group", group, "--members", "--verbose"),
                "(?s).*" + group + " +" + id + " +/127.0.0.1 +tea +2 +2 +" + topic + ":0,1 +2 +" + topic + ":0,1.*");
            matches(groups("--describe", "--group", group, "--state", "--verbose"), "(?s).*" + group + " +127.0.0.1:\\d+ +\\(1\\) +uniform +Stable +2 +2 +1.*");
            matches(groups("--list", "--state", "stable", "--type", "consumer"), "(?s).*" + group + " +Consumer +Stable.*");
            Samples.check(!groups("--list", "--type", "classic").contains(group), "it is not a classic group");
            matches(tools.run("org.apache.kafka.tools.GroupsCommand", with("--list", "--group-type", "consumer")), "(?s).*" + group + " +Consumer +consumer.*");
            holds(tools.outcome("", GROUPS, with("--delete", "--group", group)).output(), "not empty");
        }
        Samples.until("an empty group", () -> quietly(() -> groups("--describe", "--group", group, "--state")).contains("Empty"));
        configs("--alter", "--entity-type", "groups", "--entity-name", group, "--add-config", "consumer.session.timeout.ms=7000");
        Samples.until("the setting", () -> quietly(() -> configs("--describe", "--entity-type", "groups", "--entity-name", group)).contains("consumer.session.timeout.ms=7000"));
        configs("--alter", "--entity-type", "groups", "--entity-name", group, "--delete-config", "consumer.session.timeout.ms");
        holds(groups("--delete", "--group", group), "Deletion of requested consumer groups");
    }

    /** kafka-verifiable-consumer, whose lines of JSON other programs read: the same from either broker, by either protocol. */
    void verifiable() throws Exception {
        topics("--create", "--topic", topic);
        tools.runWith("1\n2\n3\n4\n5\n", PRODUCER, "--bootstrap-server", bootstrap, "--topic", topic);
        String place = "\"topic\":\"" + topic + "\",\"partition\":0";
        for (String protocol : List.of("classic", "consumer")) {
            List<String> consumed = events(tools.run("org.apache.kafka.tools.VerifiableConsumer",
                with("--topic", topic, "--group-id", topic + "-" + protocol, "--group-protocol", protocol, "--max-messages", "5", "--reset-policy", "earliest")));
            Samples.equal(consumed, List.of(
                "{\"name\":\"startup_complete\"}",
                "{\"name\":\"partitions_assigned\",\"partitions\":[{" + place + "}]}",
                "{\"name\":\"records_consumed\",\"count\":5,\"partitions\":[{" + place + ",\"count\":5,\"minOffset\":0,\"maxOffset\":4}]}",
                "{\"name\":\"offsets_committed\",\"offsets\":[{" + place + ",\"offset\":5}],\"success\":true}",
                "{\"name\":\"partitions_revoked\",\"partitions\":[{" + place + "}]}",
                "{\"name\":\"shutdown_complete\"}"), protocol);
        }
    }

    /** Lines of JSON without what differs each time. */
    private static List<String> events(String output) throws Exception {
        List<String> events = new ArrayList<>();
        for (String line : output.lines().filter(line -> line.startsWith("{")).toList()) {
            ObjectNode event = (ObjectNode) new ObjectMapper().readTree(line);
            event.remove("timestamp");
            events.add(event.toString());
        }
        return events;
    }

    /** kafka-delete-records and kafka-log-dirs. */
    void deleteRecords() throws Exception {
        topics("--create", "--topic", topic);
        tools.runWith("a\nb\nc\n", PRODUCER, "--bootstrap-server", bootstrap, "--topic", topic);
        Path file = Files.createTempFile("delete-records", ".json");
        Files.writeString(file, "{\"partitions\": [{\"topic\": \"" + topic + "\", \"partition\": 0, \"offset\": 2}], \"version\": 1}");
        holds(tools.run("org.apache.kafka.tools.DeleteRecordsCommand", "--bootstrap-server", bootstrap, "--offset-json-file", file.toString()), "low_watermark: 2");
        Files.delete(file);
        holds(offsets("--topic", topic, "--time", "earliest"), topic + ":0:2");
        holds(tools.run("org.apache.kafka.tools.LogDirsCommand", "--bootstrap-server", bootstrap, "--describe", "--topic-list", topic), "\"partition\":\"" + topic + "-0\"");
    }

    /** kafka-broker-api-versions, kafka-cluster and kafka-groups. */
    void smallTools() throws Exception {
        holds(tools.run("org.apache.kafka.tools.BrokerApiVersionsCommand", "--bootstrap-server", bootstrap), "Produce(0): 0 to ");
        holds(tools.run("org.apache.kafka.tools.ClusterTool", "cluster-id", "--bootstrap-server", bootstrap), "Cluster ID: ");
        tools.run("org.apache.kafka.tools.GroupsCommand", "--bootstrap-server", bootstrap, "--list");
    }

    /** kafka-producer-perf-test and kafka-consumer-perf-test count what they sent and got. */
    void performance() throws Exception {
        topics("--create", "--topic", topic, "--partitions", "3");
        holds(tools.run("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", "20000", "--record-size", "200", "--throughput", "-1", "--bootstrap-server", bootstrap),
            "20000 records sent");
        String got = tools.run("org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", bootstrap, "--topic", topic, "--num-records", "20000", "--timeout", "60000");
        holds(got, ", 20000, ");
    }

    /** kafka-transactions: list, describe, describe-producers, find-hanging, abort, forceTerminateTransaction. */
    void transactions() throws Exception {
        topics("--create", "--topic", topic, "--partitions", "2");
        String id = topic + "-id";
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("transactional.id", id);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, 1, null, Samples.bytes("open"))).get(60, SECONDS);
            matches(transactions("list"), "(?s).*" + id + "\\s+1\\s+\\d+\\s+Ongoing.*");
            matches(transactions("list", "--transactional-id-pattern", topic + ".*"), "(?s).*" + id + ".*");
            Samples.check(!transactions("list", "--duration-filter", "3600000").contains(id), "no transaction is that old");
            String described = transactions("describe", "--transactional-id", id);
            matches(described, "(?s).*" + id + "\\s+\\d+\\s+\\d+\\s+Ongoing\\s+60000.*" + topic + "-1.*");
            matches(transactions("describe-producers", "--topic", topic, "--partition", "1"), "(?s).*\\n\\d+\\s+0\\s+-1\\s+0\\s+\\d+\\s+0\\s*");
            Samples.check(!transactions("find-hanging", "--broker-id", "1", "--max-transaction-timeout", "0").contains(id), "its coordinator knows of it");
            transactions("abort", "--topic", topic, "--partition", "1", "--start-offset", "0");
            matches(transactions("describe-producers", "--topic", topic, "--partition", "1"), "(?s).*None\\s*");
        }
        transactions("forceTerminateTransaction", "--transactionalId", id);
        matches(transactions("describe", "--transactional-id", id), "(?s).*" + id + "\\s+\\d+\\s+\\d+\\s+(Empty|CompleteAbort|PrepareAbort).*");
    }

    private String transactions(String... arguments) throws Exception {
        return tools.run("org.apache.kafka.tools.TransactionsCommand", with(arguments));
    }

    private String topics(String... arguments) throws Exception {
        return tools.run(TOPICS, with(arguments));
    }

    private String configs(String... arguments) throws Exception {
        return tools.run(CONFIGS, with(arguments));
    }

    private String groups(String... arguments) throws Exception {
        return tools.run(GROUPS, with(arguments));
    }

    private String offsets(String... arguments) throws Exception {
        return tools.run(OFFSETS, with(arguments));
    }

    private String[] with(String... arguments) {
        String[] all = new String[arguments.length + 2];
        all[0] = "--bootstrap-server";
        all[1] = bootstrap;
        System.arraycopy(arguments, 0, all, 2, arguments.length);
        return all;
    }

    private interface Question {
        String ask() throws Exception;
    }

    private static String quietly(Question question) {
        try {
            return question.ask();
        } catch (Exception failure) {
            throw new AssertionError(failure);
        }
    }

    private static void holds(String output, String part) {
        Samples.check(output.contains(part), "no `" + part + "` in:\n" + output);
    }

    private static void matches(String output, String pattern) {
        Samples.check(output.matches(pattern), "no " + pattern + " in:\n" + output);
    }
}
