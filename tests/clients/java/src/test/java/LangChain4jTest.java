import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.langchain4j.agent.tool.Tool;
import dev.langchain4j.exception.RateLimitException;
import dev.langchain4j.model.chat.Capability;
import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.chat.StreamingChatModel;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.openai.OpenAiEmbeddingModel;
import dev.langchain4j.model.openai.OpenAiModerationModel;
import dev.langchain4j.model.openai.OpenAiResponsesChatModel;
import dev.langchain4j.model.openai.OpenAiResponsesStreamingChatModel;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;
import dev.langchain4j.data.segment.TextSegment;
import dev.langchain4j.service.AiServices;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

/** LangChain4j's OpenAI module: models and AI services over chat and Responses, embeddings, failures. */
class LangChain4jTest {
    /** What AI services make of a model: a service whose answers are texts, and one whose answers are forecasts. */
    interface Assistant {
        String answer(String question);
    }

    interface Forecaster {
        Emulator.Forecast forecast(String question);
    }

    static class Tools {
        final List<String> cities = new ArrayList<>();

        @Tool("Tell the weather of a city.")
        String weather(String city) {
            cities.add(city);
            return "sunny";
        }
    }

    static OpenAiChatModel.OpenAiChatModelBuilder chat(Map<String, String> headers) {
        return OpenAiChatModel.builder().baseUrl(Emulator.BASE_URL).apiKey("dummy-key").modelName("gpt-4o").seed(1)
            .customHeaders(headers);
    }

    static StreamingChatModel streaming(Map<String, String> headers) {
        return OpenAiStreamingChatModel.builder().baseUrl(Emulator.BASE_URL).apiKey("dummy-key").modelName("gpt-4o")
            .seed(1).customHeaders(headers).build();
    }

    static List<String> streamed(StreamingChatModel model, List<String> deltas) throws Exception {
        var ended = new CompletableFuture<ChatResponse>();
        model.chat(Emulator.QUESTION, new StreamingChatResponseHandler() {
            public void onPartialResponse(String delta) {
                deltas.add(delta);
            }

            public void onCompleteResponse(ChatResponse response) {
                ended.complete(response);
            }

            public void onError(Throwable error) {
                ended.completeExceptionally(error);
            }
        });
        assertEquals(ended.get(20, TimeUnit.SECONDS).aiMessage().text(), String.join("", deltas));
        return deltas;
    }

    static void callsAToolAndAnswers(ChatModel model) {
        var tools = new Tools();
        var assistant = AiServices.builder(Assistant.class).chatModel(model).tools(tools).build();
        assertFalse(assistant.answer(Emulator.QUESTION).isEmpty());
        assertEquals(1, tools.cities.size());
    }

    @Test
    void chatIsTheSameWholeAndStreamed() throws Exception {
        var deltas = streamed(streaming(Map.of()), new ArrayList<>());
        assertEquals(20, deltas.size());
        assertEquals(chat(Map.of()).build().chat(Emulator.QUESTION), String.join("", deltas));
    }

    @Test
    void chatCallsAToolAndAnswers() {
        callsAToolAndAnswers(chat(Map.of("X-TOOL-CALLS", "1")).build());
    }

    /** These models send no fields of ours, so that the model's name asks for the call. */
    @Test
    void responsesCallAToolAndAnswer() {
        callsAToolAndAnswers(responses().modelName("gpt-4o-calls").build());
    }

    @Test
    void chatFollowsASchema() {
        var model = chat(Map.of()).supportedCapabilities(Capability.RESPONSE_FORMAT_JSON_SCHEMA).strictJsonSchema(true);
        var forecaster = AiServices.create(Forecaster.class, model.build());
        assertFalse(forecaster.forecast(Emulator.QUESTION).city.isEmpty());
    }

    static OpenAiResponsesChatModel.Builder responses() {
        return OpenAiResponsesChatModel.builder().baseUrl(Emulator.BASE_URL).apiKey("dummy-key").modelName("gpt-4o");
    }

    @Test
    void responsesAnswer() {
        assertFalse(responses().build().chat(Emulator.QUESTION).isEmpty());
    }

    @Test
    void responsesStream() throws Exception {
        var model = OpenAiResponsesStreamingChatModel.builder().baseUrl(Emulator.BASE_URL).apiKey("dummy-key").modelName("gpt-4o");
        assertEquals(20, streamed(model.build(), new ArrayList<>()).size());
    }

    @Test
    void embeddings() {
        var model = OpenAiEmbeddingModel.builder().baseUrl(Emulator.BASE_URL).apiKey("dummy-key").modelName("text-embedding-3-small");
        var vectors = model.build().embedAll(List.of(TextSegment.from("a cat"), TextSegment.from("a dog"))).content();
        assertEquals(List.of(1536, 1536), vectors.stream().map(one -> one.dimension()).toList());
    }

    @Test
    void aFailureIsAnError() {
        var model = chat(Map.of("X-FAULT-STATUS", "429")).maxRetries(0).build();
        assertThrows(RateLimitException.class, () -> model.chat(Emulator.QUESTION));
    }

    @Test
    void triesAgain() {
        assertFalse(chat(Emulator.failsOnce()).maxRetries(1).build().chat(Emulator.QUESTION).isEmpty());
    }

    /** An error event tells this client nothing but the end, as what the API sends is none of its events. */
    @Test
    void chatEndsWhereItFailsInMidStream() throws Exception {
        assertEquals(3, streamed(streaming(Emulator.MID_STREAM), new ArrayList<>()).size());
    }

    @Test
    void readsPastComments() throws Exception {
        assertEquals(20, streamed(streaming(Emulator.COMMENTS), new ArrayList<>()).size());
        assertEquals(':', Emulator.firstOfComments());
    }

    @Test
    void moderates() {
        var model = OpenAiModerationModel.builder().baseUrl(Emulator.BASE_URL).apiKey("dummy-key").modelName("omni-moderation-latest");
        assertFalse(model.build().moderate("hi").content().flagged());
    }
}
