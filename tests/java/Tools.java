import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.InputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/** Kafka's command line tools, run inside this JVM as if each had been started by itself: starting a JVM for each would cost seconds of both cores. */
final class Tools {
    /** How a tool ended, and all that it printed. */
    record Outcome(int status, String output) {}

    /** Thrown in place of the process's end. Some tools catch it, think that they failed, and end once more: the first end counts. */
    private static final class Ended extends RuntimeException {}

    private final ClassLoader loader;
    private Integer firstEnd;
    /** What a tool leaves to the end of its process, such as the console producer its last records. */
    private final List<Runnable> shutdownHooks = new ArrayList<>();

    Tools(String folder) throws Exception {
        List<URL> jars = new ArrayList<>();
        for (File jar : new File(folder).listFiles((parent, name) -> name.endsWith(".jar"))) {
            jars.add(jar.toURI().toURL());
        }
        loader = new URLClassLoader(jars.toArray(new URL[0]), ClassLoader.getPlatformClassLoader());
        Class<?> exit = loader.loadClass("org.apache.kafka.common.utils.Exit");
        Class<?> procedure = loader.loadClass("org.apache.kafka.common.utils.Exit$Procedure");
        Object end = Proxy.newProxyInstance(loader, new Class<?>[] {procedure}, (proxy, method, arguments) -> {
            firstEnd = firstEnd == null ? (Integer) arguments[0] : firstEnd;
            throw new Ended();
        });
        exit.getMethod("setExitProcedure", procedure).invoke(null, end);
        exit.getMethod("setHaltProcedure", procedure).invoke(null, end);
        Class<?> adder = loader.loadClass("org.apache.kafka.common.utils.Exit$ShutdownHookAdder");
        Object collect = Proxy.newProxyInstance(loader, new Class<?>[] {adder}, (proxy, method, arguments) -> {
            shutdownHooks.add((Runnable) arguments[1]);
            return null;
        });
        exit.getMethod("setShutdownHookAdder", adder).invoke(null, collect);
    }

    /** Runs a tool that must succeed; what it printed. */
    String run(String tool, String... arguments) throws Exception {
        return runWith("", tool, arguments);
    }

    String runWith(String input, String tool, String... arguments) throws Exception {
        Outcome outcome = outcome(input, tool, arguments);
        Samples.check(outcome.status() == 0, tool + " ended with " + outcome.status() + ":\n" + outcome.output());
        return outcome.output();
    }

    Outcome outcome(String input, String tool, String... arguments) throws Exception {
        PrintStream out = System.out;
        PrintStream err = System.err;
        InputStream in = System.in;
        ClassLoader context = Thread.currentThread().getContextClassLoader();
        ByteArrayOutputStream printed = new ByteArrayOutputStream();
        PrintStream both = new PrintStream(printed, true, StandardCharsets.UTF_8);
        int status = 0;
        firstEnd = null;
        try {
            System.setOut(both);
            System.setErr(both);
            System.setIn(new ByteArrayInputStream(input.getBytes(StandardCharsets.UTF_8)));
            Thread.currentThread().setContextClassLoader(loader);
            loader.loadClass(tool).getMethod("main", String[].class).invoke(null, (Object) arguments);
        } catch (InvocationTargetException wrapped) {
            status = statusOf(wrapped.getCause(), both);
        } finally {
            shutdownHooks.forEach(Runnable::run);
            shutdownHooks.clear();
            System.setOut(out);
            System.setErr(err);
            System.setIn(in);
            Thread.currentThread().setContextClassLoader(context);
        }
        both.flush();
        return new Outcome(status, printed.toString(StandardCharsets.UTF_8));
    }

    private int statusOf(Throwable failure, PrintStream log) {
        if (firstEnd != null) {
            return firstEnd;
        }
        failure.printStackTrace(log);
        return -1;
    }
}
