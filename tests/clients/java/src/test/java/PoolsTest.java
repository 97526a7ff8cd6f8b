import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.openai.client.okhttp.OpenAIOkHttpClient;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import org.junit.jupiter.api.Test;

/** OkHttp's pool, which openai-java has, and the JDK's, asked for something every 5, 30 and 65 s. */
class PoolsTest {
    static final int CONNECTIONS = 50;
    static final int ROUNDS = 4;
    static final double TIME = Double.parseDouble(System.getenv().getOrDefault("CLIENTS_TIME", "0.1"));
    static final ExecutorService THREADS = Executors.newCachedThreadPool(task -> {
        var thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    });

    /** Passes all on, and counts connections, which neither pool shows. */
    static final class Relay implements AutoCloseable {
        final ServerSocket listening = new ServerSocket(0, CONNECTIONS, InetAddress.getLoopbackAddress());
        final AtomicInteger connections = new AtomicInteger();
        final String url = "http://localhost:" + listening.getLocalPort() + "/v1";

        Relay() throws IOException {
            var server = URI.create(Emulator.BASE_URL);
            THREADS.submit(() -> {
                while (true) {
                    var client = listening.accept();
                    connections.incrementAndGet();
                    var behind = new Socket(server.getHost(), server.getPort());
                    THREADS.submit(() -> pass(client, behind));
                    THREADS.submit(() -> pass(behind, client));
                }
            });
        }

        static Void pass(Socket from, Socket to) throws IOException {
            try (from; to) {
                from.getInputStream().transferTo(to.getOutputStream());
            }
            return null;
        }

        @Override
        public void close() throws IOException {
            listening.close();
        }
    }

    static Callable<?> okhttp(String url) {
        var client = OpenAIOkHttpClient.builder().baseUrl(url).apiKey("dummy-key").maxRetries(0)
            .maxIdleConnections(CONNECTIONS).keepAliveDuration(Duration.ofMinutes(10))
            .putHeader("X-TTFT-MS", "1000").build();
        return () -> client.chat().completions().create(OpenAIJavaTest.question().build());
    }

    static Callable<?> jdk(String url) {
        System.setProperty("jdk.httpclient.keepalive.timeout", "600");
        var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
        var body = "{\"model\": \"gpt-4o\", \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}";
        var request = HttpRequest.newBuilder(URI.create(url + "/chat/completions")).header("X-TTFT-MS", "1000")
            .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body)).build();
        return () -> {
            var answer = client.send(request, BodyHandlers.ofString());
            assertEquals(200, answer.statusCode(), answer.body());
            return answer;
        };
    }

    /**
     * Asks through all connections at once, in rounds; each call waits for its first token. A pool
     * makes a connection where all that it has are busy, and so no more than calls are under way.
     */
    static Void ask(Relay relay, Callable<?> call, int seconds) throws Exception {
        for (var round = 0; round < ROUNDS; round++) {
            if (round > 0) {
                Thread.sleep((long) (seconds * TIME * 1000));
            }
            var calls = new ArrayList<Future<?>>();
            for (var number = 0; number < CONNECTIONS; number++) {
                calls.add(THREADS.submit(call));
            }
            for (var each : calls) {
                each.get();
            }
            var made = relay.connections.get();
            assertTrue(made <= CONNECTIONS, made + " connections, every " + seconds + " s");
        }
        return null;
    }

    @Test
    void poolsSeeNoReset() throws Exception {
        var begun = new ArrayList<Future<?>>();
        for (Function<String, Callable<?>> pool : List.<Function<String, Callable<?>>>of(PoolsTest::okhttp, PoolsTest::jdk)) {
            for (var seconds : List.of(5, 30, 65)) {
                var relay = new Relay();
                begun.add(THREADS.submit(() -> ask(relay, pool.apply(relay.url), seconds)));
            }
        }
        for (var each : begun) {
            each.get();
        }
    }
}
