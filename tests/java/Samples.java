import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.function.BooleanSupplier;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/** What every client writes and must read again, and how the two are compared; the same sets as in the other languages. */
final class Samples {
    private Samples() {}

    /** A record as written. */
    record Sample(byte[] key, byte[] value, List<Header> headers) {
        Sample(String key, byte[] value) {
            this(bytes(key), value, List.of());
        }
    }

    static byte[] bytes(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    /** Compressible and incompressible values from one byte to some KiB. */
    static List<Sample> records(int count) {
        List<Sample> made = new ArrayList<>();
        for (int index = 0; index < count; index++) {
            byte[] text = bytes(("record " + index + " ").repeat(index % 7 * 40 + 1));
            byte[] value = Arrays.copyOf(text, text.length + index % 5 * 50);
            for (int position = text.length; position < value.length; position++) {
                value[position] = (byte) (index * 131 + position * 197 + position * position * 7);
            }
            made.add(new Sample(bytes("key-" + index), value, List.of(new RecordHeader("index", bytes("" + index)))));
        }
        return made;
    }

    /** Tombstones, empty values, empty keys, no keys: none of them may turn into another. */
    static List<Sample> oddRecords() {
        byte[] empty = new byte[0];
        return List.of(new Sample("tombstone", null), new Sample("empty value", empty), new Sample("", bytes("empty key")), new Sample(null, bytes("no key")),
            new Sample(null, (byte[]) null), new Sample("", empty));
    }

    /** Order and repetition count; an empty value is not a missing one; a key may hold any letter. */
    static List<Header> headersOfEveryKind() {
        byte[] all = new byte[256];
        for (int index = 0; index < all.length; index++) {
            all[index] = (byte) index;
        }
        return List.of(new RecordHeader("a", bytes("1")), new RecordHeader("a", bytes("2")), new RecordHeader("empty", new byte[0]), new RecordHeader("missing", (byte[]) null),
            new RecordHeader("größe", all), new RecordHeader("a", bytes("3")));
    }

    static void same(List<ConsumerRecord<byte[], byte[]>> got, List<Sample> expected) {
        equal(got.size(), expected.size(), "records");
        for (int position = 0; position < got.size(); position++) {
            ConsumerRecord<byte[], byte[]> record = got.get(position);
            Sample sample = expected.get(position);
            boolean same = Arrays.equals(record.key(), sample.key()) && Arrays.equals(record.value(), sample.value())
                && Arrays.equals(record.headers().toArray(), sample.headers().toArray(new Header[0]));
            if (!same) {
                throw new AssertionError("record " + position + " came back otherwise: " + record);
            }
        }
    }

    static void equal(Object got, Object expected, String what) {
        if (!Objects.equals(got, expected)) {
            throw new AssertionError(what + ": " + got + " instead of " + expected);
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static void until(String what, BooleanSupplier look) throws InterruptedException {
        long end = System.nanoTime() + Duration.ofSeconds(60).toNanos();
        while (!look.getAsBoolean()) {
            check(System.nanoTime() < end, "waited a minute for " + what);
            Thread.sleep(50);
        }
    }
}
