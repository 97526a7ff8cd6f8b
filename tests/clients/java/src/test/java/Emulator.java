import com.fasterxml.jackson.annotation.JsonProperty;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/** Where the emulator is, and what both clients ask it for. */
final class Emulator {
    static final String BASE_URL = System.getenv("EMULATOR_URL") + "/v1";
    static final String QUESTION = "What is the weather?";
    static final Map<String, String> MID_STREAM = Map.of("X-FAULT-KIND", "error", "X-FAULT-AFTER-TOKENS", "3");
    static final Map<String, String> COMMENTS = Map.of("X-TTFT-MS", "400", "X-KEEPALIVE-MS", "100");

    private Emulator() {}

    /** What a schema asks for. */
    static class Forecast {
        @JsonProperty(required = true) public String city;
        @JsonProperty(required = true) public double degrees;
        @JsonProperty(required = true) public List<Integer> days;
    }

    /** Fields that fail the first try of a call, for clients that do not count their tries. */
    static Map<String, String> failsOnce() {
        return Map.of("X-FAULT-STATUS", "503", "X-FAULT-ATTEMPTS", "1",
            "X-FAULT-RETRY-AFTER-MS", "10", "X-FAULT-KEY", UUID.randomUUID().toString());
    }

    /** The first character of a stream with COMMENTS, which clients hide. */
    static char firstOfComments() throws Exception {
        var body = "{\"model\": \"gpt-4o\", \"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}";
        var request = HttpRequest.newBuilder(URI.create(BASE_URL + "/chat/completions"))
            .header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body));
        COMMENTS.forEach(request::header);
        return HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofString()).body().charAt(0);
    }
}
