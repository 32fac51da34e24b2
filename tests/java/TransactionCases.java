import static java.util.concurrent.TimeUnit.SECONDS;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;

/** Transactions, as applications use them: each method is a case. Run with clients of both transaction protocols, so nothing here is younger than those of 3.9. */
final class TransactionCases extends Cases {
    TransactionCases(String bootstrap, String topic, JsonNode expected) {
        super(bootstrap, topic, expected);
    }

    /** Readers of committed records get what was committed, in order, and nothing of what was aborted. */
    void transactions() throws Exception {
        create(2, Map.of());
        List<List<String>> committed = List.of(new ArrayList<>(), new ArrayList<>());
        try (KafkaProducer<byte[], byte[]> producer = transactional("id")) {
            for (int round = 0; round < 8; round++) {
                producer.beginTransaction();
                for (int index = 0; index < 6; index++) {
                    String key = round + "-" + index;
                    producer.send(new ProducerRecord<>(topic, index % 2, Samples.bytes(key), new byte[index * 50]));
                    if (round % 2 == 0) {
                        committed.get(index % 2).add(key);
                    }
                }
                // What is not sent yet when a transaction is given up never will be.
                producer.flush();
                if (round % 2 == 0) {
                    producer.commitTransaction();
                } else {
                    producer.abortTransaction();
                }
            }
        }
        for (int partition = 0; partition < 2; partition++) {
            Samples.equal(committedKeys(topic, partition, committed.get(partition).size()), committed.get(partition), "committed records");
            Samples.equal(consume(partition, 0, 24).size(), 24, "all records");
        }
    }

    /** Who takes over a transactional id ends the other's transaction, and the other is told so. */
    void aSecondInstanceFencesTheFirst() throws Exception {
        create(1, Map.of());
        try (KafkaProducer<byte[], byte[]> first = transactional("id")) {
            first.beginTransaction();
            first.send(new ProducerRecord<>(topic, 0, Samples.bytes("first"), null)).get(60, SECONDS);
            try (KafkaProducer<byte[], byte[]> second = transactional("id")) {
                second.beginTransaction();
                second.send(new ProducerRecord<>(topic, 0, Samples.bytes("second"), null));
                second.commitTransaction();
            }
            boolean fenced = false;
            try {
                first.commitTransaction();
            } catch (ProducerFencedException expected) {
                fenced = true;
            } catch (InvalidProducerEpochException expected) {
                // Not one clause: what the two have in common is a class that the older clients do not have.
                fenced = true;
            }
            Samples.check(fenced, "the first instance committed");
        }
        Samples.equal(committedKeys(topic, 0, 1), List.of("second"), "committed records");
    }

    /** Read, write and commit the positions in one transaction; every other one is given up. The copy holds each record once. */
    void exactlyOnceCopy() throws Exception {
        create(2, Map.of());
        String copy = topic + "-copy";
        create(new NewTopic(copy, 1, (short) 1));
        List<Samples.Sample> samples = Samples.records(40);
        produce(samples.subList(0, 20), 0, Map.of());
        produce(samples.subList(20, 40), 1, Map.of());
        int copied = 0;
        for (int attempt = 0; copied < 40; attempt++) {
            Samples.check(attempt < 100, copied + " of 40 records copied");
            try (KafkaProducer<byte[], byte[]> producer = transactional("copier"); KafkaConsumer<byte[], byte[]> reader = subscriber(Map.of("max.poll.records", "7"))) {
                List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
                Samples.until("records to copy", () -> {
                    reader.poll(Duration.ofMillis(300)).forEach(got::add);
                    return !got.isEmpty();
                });
                producer.beginTransaction();
                Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
                for (ConsumerRecord<byte[], byte[]> record : got) {
                    producer.send(new ProducerRecord<>(copy, 0, record.key(), record.value()));
                    positions.put(new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1));
                }
                producer.sendOffsetsToTransaction(positions, reader.groupMetadata());
                if (attempt % 2 == 0) {
                    producer.abortTransaction();
                } else {
                    producer.commitTransaction();
                    copied += got.size();
                }
            }
        }
        Samples.equal(new TreeSet<>(committedKeys(copy, 0, 40)).size(), 40, "distinct records of the copy");
        Map<TopicPartition, OffsetAndMetadata> committed = admin.listConsumerGroupOffsets(group()).partitionsToOffsetAndMetadata().get(60, SECONDS);
        Samples.equal(committed.values().stream().mapToLong(OffsetAndMetadata::offset).sum(), 40L, "committed positions");
    }

    /** Two tellers move money between two accounts at the same time, and some of their transactions are given up: no cent is made or lost. */
    void moneyTransfer() throws Exception {
        create(2, Map.of());
        List<Thread> tellers = new ArrayList<>();
        List<Throwable> failures = new ArrayList<>();
        int[] transfers = new int[2];
        for (int teller = 0; teller < 2; teller++) {
            int number = teller;
            Thread thread = new Thread(() -> {
                try (KafkaProducer<byte[], byte[]> producer = transactional("teller-" + number)) {
                    for (int round = 0; round < 60; round++) {
                        byte[] key = Samples.bytes(number + "-" + round);
                        producer.beginTransaction();
                        producer.send(new ProducerRecord<>(topic, 0, key, Samples.bytes("-" + (round + 1))));
                        producer.send(new ProducerRecord<>(topic, 1, key, Samples.bytes("" + (round + 1))));
                        if (round % 5 == 3) {
                            producer.flush();
                            producer.abortTransaction();
                        } else {
                            producer.commitTransaction();
                            transfers[number]++;
                        }
                    }
                } catch (Throwable failure) {
                    synchronized (failures) {
                        failures.add(failure);
                    }
                }
            });
            tellers.add(thread);
            thread.start();
        }
        for (Thread thread : tellers) {
            thread.join();
        }
        Samples.check(failures.isEmpty(), "a teller failed: " + failures);
        int expectedTransfers = transfers[0] + transfers[1];
        Map<String, Long> balance = new HashMap<>();
        try (KafkaConsumer<byte[], byte[]> reader = consumer(Map.of("isolation.level", "read_committed"))) {
            List<TopicPartition> places = List.of(new TopicPartition(topic, 0), new TopicPartition(topic, 1));
            reader.assign(places);
            reader.seekToBeginning(places);
            List<ConsumerRecord<byte[], byte[]>> got = read(reader, expectedTransfers * 2);
            for (ConsumerRecord<byte[], byte[]> record : got) {
                balance.merge(new String(record.key(), StandardCharsets.UTF_8), Long.parseLong(new String(record.value(), StandardCharsets.UTF_8)), Long::sum);
            }
            Samples.check(reader.poll(Duration.ofMillis(500)).isEmpty(), "more records than transfers");
        }
        Samples.equal(balance.size(), expectedTransfers, "transfers");
        Samples.check(balance.values().stream().allMatch(sum -> sum == 0), "a transfer with one side only: " + balance);
    }

    private KafkaProducer<byte[], byte[]> transactional(String name) {
        KafkaProducer<byte[], byte[]> producer = producer(Map.of("transactional.id", topic + "-" + name, "linger.ms", "0"));
        producer.initTransactions();
        return producer;
    }

    private List<String> committedKeys(String from, int partition, int count) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(Map.of("isolation.level", "read_committed"))) {
            TopicPartition place = new TopicPartition(from, partition);
            consumer.assign(Set.of(place));
            consumer.seekToBeginning(Set.of(place));
            List<String> keys = new ArrayList<>(read(consumer, count).stream().map(record -> new String(record.key(), StandardCharsets.UTF_8)).toList());
            consumer.poll(Duration.ofMillis(300)).forEach(record -> keys.add(new String(record.key(), StandardCharsets.UTF_8)));
            return keys;
        }
    }
}
