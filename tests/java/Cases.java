import static java.util.concurrent.TimeUnit.SECONDS;

import com.fasterxml.jackson.databind.JsonNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * A case's topic, and the calls that most cases make on it.
 *
 * Nothing here is younger than the clients of 3.9, which run some of the cases, too.
 */
abstract class Cases implements AutoCloseable {
    final String bootstrap;
    final String topic;
    final JsonNode expected;
    final Admin admin;

    Cases(String bootstrap, String topic, JsonNode expected) {
        this.bootstrap = bootstrap;
        this.topic = topic;
        this.expected = expected;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    }

    @Override
    public void close() {
        admin.close();
    }

    String group() {
        return topic + "-group";
    }

    void create(int partitions, Map<String, String> configs) throws Exception {
        create(new NewTopic(topic, partitions, (short) 1).configs(new HashMap<>(configs)));
    }

    void create(NewTopic made) throws Exception {
        admin.createTopics(Set.of(made)).all().get(60, SECONDS);
    }

    static <T> T value(Future<T> future) {
        try {
            return future.get(60, SECONDS);
        } catch (Exception failure) {
            throw new AssertionError(failure);
        }
    }

    KafkaProducer<byte[], byte[]> producer(Map<String, String> settings) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("linger.ms", "20");
        properties.put("max.request.size", "4000000");
        properties.putAll(settings);
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }

    void produce(List<Samples.Sample> samples, int partition, Map<String, String> settings) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(settings)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (Samples.Sample sample : samples) {
                sent.add(producer.send(new ProducerRecord<>(topic, partition, sample.key(), sample.value(), sample.headers())));
            }
            for (Future<RecordMetadata> future : sent) {
                future.get(60, SECONDS);
            }
        }
    }

    KafkaConsumer<byte[], byte[]> consumer(Map<String, String> settings) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "none");
        properties.putAll(settings);
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    KafkaConsumer<byte[], byte[]> subscriber(Map<String, String> settings) {
        Map<String, String> all = new HashMap<>(Map.of("group.id", group(), "auto.offset.reset", "earliest", "session.timeout.ms", "10000", "heartbeat.interval.ms", "500",
            "metadata.max.age.ms", "1000"));
        all.putAll(settings);
        if (settings.containsKey("group.protocol")) {
            // The broker says these.
            all.keySet().removeAll(Set.of("session.timeout.ms", "heartbeat.interval.ms"));
        }
        KafkaConsumer<byte[], byte[]> consumer = consumer(all);
        consumer.subscribe(Set.of(topic));
        return consumer;
    }

    List<ConsumerRecord<byte[], byte[]>> consume(int partition, long start, int count) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of())) {
            TopicPartition place = new TopicPartition(topic, partition);
            consumer.assign(Set.of(place));
            consumer.seek(place, start);
            return read(consumer, count);
        }
    }

    static List<ConsumerRecord<byte[], byte[]>> read(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        long end = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (got.size() < count) {
            Samples.check(System.nanoTime() < end, got.size() + " of " + count + " records");
            consumer.poll(Duration.ofMillis(500)).forEach(got::add);
        }
        return got;
    }
}
