import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Locale;

/**
 * Runs cases for the Rust harness in one JVM: a line of JSON in, a line `RESULT {...}` out (tests/harness/runner.rs).
 *
 * The cases are methods of TransactionCases and ClientCases (kafka-clients 4.4.0, or the older ones on the class path, which know no more than the former) and of ToolCases (Kafka's
 * command line tools). The first argument, if there is one, names the folder with the tools' jars, which stay in a class loader of their own because they bring the clients of
 * another release.
 */
public final class Runner {
    public static void main(String[] arguments) throws Exception {
        // The cases speak through `answers`; whatever a tool prints is caught, and everything else is log.
        PrintStream answers = System.out;
        System.setOut(System.err);
        Tools tools = arguments.length > 0 ? new Tools(arguments[0]) : null;
        ObjectMapper json = new ObjectMapper();
        BufferedReader orders = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = orders.readLine(); line != null; line = orders.readLine()) {
            JsonNode order = json.readTree(line);
            System.err.println("case " + order.get("case").asText());
            ObjectNode result = json.createObjectNode();
            try {
                run(order, tools);
                result.put("ok", true);
            } catch (Throwable failure) {
                StringWriter trace = new StringWriter();
                failure.printStackTrace(new PrintWriter(trace));
                result.put("ok", false).put("error", trace.toString());
            }
            answers.println("RESULT " + json.writeValueAsString(result));
            answers.flush();
        }
        // Threads of tools that think of themselves as programs may linger.
        Runtime.getRuntime().halt(0);
    }

    private static void run(JsonNode order, Tools tools) throws Throwable {
        String name = order.get("case").asText();
        String bootstrap = order.get("bootstrap").asText();
        String topic = order.get("name").asText();
        try {
            if (name.startsWith("tool_")) {
                ToolCases.class.getDeclaredMethod(camelCase(name.substring("tool_".length()))).invoke(new ToolCases(bootstrap, topic, order.get("expected"), tools));
            } else {
                Class<? extends Cases> home = isIn(TransactionCases.class, camelCase(name)) ? TransactionCases.class : ClientCases.class;
                try (Cases cases = home.getDeclaredConstructor(String.class, String.class, JsonNode.class).newInstance(bootstrap, topic, order.get("expected"))) {
                    home.getDeclaredMethod(camelCase(name)).invoke(cases);
                }
            }
        } catch (InvocationTargetException wrapped) {
            throw wrapped.getCause();
        }
    }

    private static boolean isIn(Class<? extends Cases> home, String method) {
        return Arrays.stream(home.getDeclaredMethods()).anyMatch(known -> known.getName().equals(method));
    }

    private static String camelCase(String name) {
        StringBuilder words = new StringBuilder();
        for (String word : name.split("_")) {
            words.append(words.length() == 0 ? word : word.substring(0, 1).toUpperCase(Locale.ROOT) + word.substring(1));
        }
        return words.toString();
    }
}
