import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.annotation.JsonClassDescription;
import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.errors.BadRequestException;
import com.openai.errors.OpenAIException;
import com.openai.helpers.ChatCompletionAccumulator;
import com.openai.helpers.ResponseAccumulator;
import com.openai.models.chat.completions.ChatCompletion;
import com.openai.models.chat.completions.ChatCompletionCreateParams;
import com.openai.models.chat.completions.ChatCompletionToolChoiceOption;
import com.openai.models.chat.completions.ChatCompletionToolMessageParam;
import com.openai.models.embeddings.EmbeddingCreateParams;
import com.openai.models.moderations.ModerationCreateParams;
import com.openai.models.responses.Response;
import com.openai.models.responses.ResponseCompactParams;
import com.openai.models.responses.ResponseCreateParams;
import com.openai.models.responses.ResponseInputItem;
import com.openai.models.responses.ResponseStatus;
import com.openai.models.responses.ResponsesClientEvent;
import com.openai.models.responses.ToolChoiceOptions;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/** openai-java: chat, Responses over HTTP and over a websocket, embeddings, failures. */
class OpenAIJavaTest {
    /** A tool. */
    @JsonClassDescription("Tell the weather of a city.")
    static class Weather {
        public String city;
    }

    static OpenAIClient client(Map<String, String> headers) {
        var builder = OpenAIOkHttpClient.builder().baseUrl(Emulator.BASE_URL).apiKey("dummy-key");
        headers.forEach(builder::putHeader);
        return builder.build();
    }

    static OpenAIClient client() {
        return client(Map.of());
    }

    static ChatCompletionCreateParams.Builder question() {
        return ChatCompletionCreateParams.builder().model("gpt-4o").seed(1).addUserMessage(Emulator.QUESTION);
    }

    static ResponseCreateParams.Builder asked() {
        return ResponseCreateParams.builder().model("gpt-4o").input(Emulator.QUESTION);
    }

    static String text(Response response) {
        return response.output().stream().flatMap(item -> item.message().stream())
            .flatMap(message -> message.content().stream()).flatMap(part -> part.outputText().stream())
            .map(part -> part.text()).collect(Collectors.joining());
    }

    static List<String> streamed(OpenAIClient client, ChatCompletionAccumulator whole, List<String> deltas) {
        try (var stream = client.chat().completions().createStreaming(question().build())) {
            stream.stream().peek(whole::accumulate).flatMap(chunk -> chunk.choices().stream())
                .flatMap(choice -> choice.delta().content().stream()).filter(delta -> !delta.isEmpty())
                .forEach(deltas::add);
        }
        return deltas;
    }

    @Test
    void chatIsTheSameWholeAndStreamed() {
        var whole = client().chat().completions().create(question().build());
        var deltas = streamed(client(), ChatCompletionAccumulator.create(), new ArrayList<>());
        assertEquals(20, deltas.size());
        assertEquals(whole.choices().get(0).message().content().get(), String.join("", deltas));
        assertEquals(20, whole.usage().get().completionTokens());
    }

    @Test
    void chatCallsAToolAndAnswers() {
        var params = question().addTool(Weather.class).toolChoice(ChatCompletionToolChoiceOption.Auto.REQUIRED);
        ChatCompletion first = client().chat().completions().create(params.build());
        var message = first.choices().get(0).message();
        var call = message.toolCalls().get().get(0).asFunction();
        assertFalse(call.function().arguments(Weather.class).city.isEmpty());
        params.addMessage(message).toolChoice(ChatCompletionToolChoiceOption.Auto.AUTO)
            .addMessage(ChatCompletionToolMessageParam.builder().toolCallId(call.id()).content("sunny").build());
        assertFalse(client().chat().completions().create(params.build()).choices().get(0).message().content().get().isEmpty());
    }

    @Test
    void chatFollowsASchema() {
        var answer = client().chat().completions().create(question().responseFormat(Emulator.Forecast.class).build());
        assertFalse(answer.choices().get(0).message().content().get().city.isEmpty());
    }

    @Test
    void responsesAnswer() {
        var answer = client().responses().create(asked().build());
        assertEquals(ResponseStatus.COMPLETED, answer.status().get());
        assertFalse(text(answer).isEmpty());
    }

    @Test
    void responsesStream() {
        var deltas = new StringBuilder();
        var accumulator = ResponseAccumulator.create();
        try (var stream = client().responses().createStreaming(asked().build())) {
            stream.stream().peek(accumulator::accumulate)
                .forEach(event -> event.outputTextDelta().ifPresent(delta -> deltas.append(delta.delta())));
        }
        assertFalse(deltas.isEmpty());
        assertEquals(deltas.toString(), text(accumulator.response()));
    }

    @Test
    void responsesCallAToolAndAnswer() {
        var params = asked().addTool(Weather.class).toolChoice(ToolChoiceOptions.REQUIRED);
        var first = client().responses().create(params.build());
        var call = first.output().get(0).asFunctionCall();
        assertFalse(call.arguments(Weather.class).city.isEmpty());
        var output = ResponseInputItem.FunctionCallOutput.builder().callId(call.callId()).output("sunny").build();
        params.toolChoice(ToolChoiceOptions.AUTO).previousResponseId(first.id())
            .inputOfResponse(List.of(ResponseInputItem.ofFunctionCallOutput(output)));
        assertFalse(text(client().responses().create(params.build())).isEmpty());
    }

    @Test
    void responsesFollowASchema() {
        var answer = client().responses().create(asked().text(Emulator.Forecast.class).build());
        var part = answer.output().get(0).asMessage().content().get(0).asOutputText();
        assertFalse(part.city.isEmpty());
    }

    @Test
    void embeddings() {
        var params = EmbeddingCreateParams.builder().model("text-embedding-3-small").inputOfArrayOfStrings(List.of("a cat", "a dog"));
        var data = client().embeddings().create(params.build()).data();
        assertEquals(List.of(1536, 1536), data.stream().map(one -> one.embedding().size()).toList());
    }

    @Test
    void aRefusalIsAnError() {
        var params = question().temperature(7).build();
        var refused = assertThrows(BadRequestException.class, () -> client().chat().completions().create(params));
        assertEquals("temperature", refused.param().get());
    }

    @Test
    void triesAgain() {
        var client = client(Map.of("X-FAULT-STATUS", "503", "X-FAULT-ATTEMPTS", "2", "X-FAULT-RETRY-AFTER-MS", "10"));
        assertFalse(client.chat().completions().create(question().build()).choices().isEmpty());
    }

    @Test
    void chatFailsInMidStream() {
        var deltas = new ArrayList<String>();
        var client = client(Emulator.MID_STREAM);
        assertThrows(OpenAIException.class, () -> streamed(client, ChatCompletionAccumulator.create(), deltas));
        assertEquals(3, deltas.size());
    }

    @Test
    void responsesFailInMidStream() {
        var failed = false;
        try (var stream = client(Emulator.MID_STREAM).responses().createStreaming(asked().build())) {
            failed = stream.stream().toList().stream().anyMatch(event -> event.isFailed());
        } catch (OpenAIException error) {
            failed = true;
        }
        assertTrue(failed, "neither an exception nor response.failed");
    }

    @Test
    void readsPastComments() throws Exception {
        var client = client(Emulator.COMMENTS);
        assertEquals(20, streamed(client, ChatCompletionAccumulator.create(), new ArrayList<>()).size());
        assertEquals(':', Emulator.firstOfComments());
    }

    @Test
    void responsesOverAWebsocket() {
        try (var connection = client().responses().connect()) {
            var create = ResponsesClientEvent.ResponseCreate.builder().model("gpt-4o").input(Emulator.QUESTION).build();
            connection.send(ResponsesClientEvent.ofResponseCreate(create));
            assertFalse(text(connection.finalResponse()).isEmpty());
        }
    }

    @Test
    void compacts() {
        var params = ResponseCompactParams.builder().model("gpt-4o").input("hi").build();
        assertFalse(client().responses().compact(params).output().isEmpty());
    }

    @Test
    void moderates() {
        var params = ModerationCreateParams.builder().input("hi").build();
        assertFalse(client().moderations().create(params).results().get(0).flagged());
    }
}
