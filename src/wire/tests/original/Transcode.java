// Reads messages with Apache Kafka's own classes and writes them again: a line in ("NAME VERSION HEX", HEX "-" for the default message), a line out (the hex, or "! PROBLEM").

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.reflect.Constructor;
import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.Readable;

public class Transcode {
    private static final String[] PACKAGES = {
        "org.apache.kafka.common.message.",
        "org.apache.kafka.coordinator.group.generated.",
        "org.apache.kafka.coordinator.transaction.generated.",
        "org.apache.kafka.coordinator.share.generated.",
        "org.apache.kafka.common.metadata.",
        "org.apache.kafka.raft.generated.",
        "org.apache.kafka.server.log.remote.metadata.storage.generated.",
        "org.apache.kafka.storage.internals.log.generated.",
        "org.apache.kafka.server.log.generated.",
    };

    private static final Map<String, Class<?>> CLASSES = new HashMap<>();

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        PrintStream out = new PrintStream(System.out, false);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split(" ");
            String answer;
            try {
                answer = transcode(words[0], Short.parseShort(words[1]), words.length > 2 ? words[2] : "");
            } catch (Throwable problem) {
                Throwable cause = problem.getCause() == null ? problem : problem.getCause();
                answer = "! " + cause;
            }
            out.println(answer);
        }
        out.flush();
    }

    private static String transcode(String name, short version, String hex) throws Exception {
        Class<?> type = find(name);
        Message message;
        if (hex.equals("-")) {
            message = (Message) type.getConstructor().newInstance();
        } else {
            ByteBuffer bytes = ByteBuffer.wrap(HexFormat.of().parseHex(hex));
            Constructor<?> constructor = type.getConstructor(Readable.class, short.class);
            message = (Message) constructor.newInstance(new ByteBufferAccessor(bytes), version);
            if (bytes.hasRemaining()) {
                return "! " + bytes.remaining() + " bytes left";
            }
        }
        ByteBuffer written = MessageUtil.toByteBufferAccessor(message, version).buffer();
        byte[] result = new byte[written.remaining()];
        written.get(result);
        return HexFormat.of().formatHex(result);
    }

    private static Class<?> find(String name) throws ClassNotFoundException {
        Class<?> known = CLASSES.get(name);
        if (known != null) {
            return known;
        }
        for (String prefix : PACKAGES) {
            for (String suffix : new String[] {"Data", ""}) {
                try {
                    Class<?> type = Class.forName(prefix + name + suffix);
                    CLASSES.put(name, type);
                    return type;
                } catch (ClassNotFoundException elsewhere) {
                    // The next place.
                }
            }
        }
        throw new ClassNotFoundException(name);
    }
}
