// go-openai: chat, legacy completions, Responses, embeddings, failures. It never tries again.
package clients

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	goopenai "github.com/sashabaranov/go-openai"
)

// headers sends each request with header fields of its own.
type headers map[string]string

func (fields headers) Do(request *http.Request) (*http.Response, error) {
	for name, value := range fields {
		request.Header.Set(name, value)
	}
	return http.DefaultClient.Do(request)
}

func simple(fields headers) *goopenai.Client {
	config := goopenai.DefaultConfig("dummy-key")
	config.BaseURL = baseURL
	config.HTTPClient = fields
	return goopenai.NewClientWithConfig(config)
}

func simpleQuestion() goopenai.ChatCompletionRequest {
	seed := 1
	return goopenai.ChatCompletionRequest{
		Model:    model,
		Messages: []goopenai.ChatCompletionMessage{{Role: "user", Content: "What is the weather?"}},
		Seed:     &seed,
	}
}

func raw(value any) json.RawMessage {
	text, _ := json.Marshal(value)
	return text
}

// read reads a chat to its end.
func read(ctx context.Context, client *goopenai.Client, request goopenai.ChatCompletionRequest) ([]string, error) {
	stream, err := client.CreateChatCompletionStream(ctx, request)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var deltas []string
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return deltas, nil
		}
		if err != nil {
			return deltas, err
		}
		if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			deltas = append(deltas, chunk.Choices[0].Delta.Content)
		}
	}
}

func TestGoOpenAIChatIsTheSameWholeAndStreamed(t *testing.T) {
	whole := must(simple(nil).CreateChatCompletion(deadline(t), simpleQuestion()))(t)
	deltas := must(read(deadline(t), simple(nil), simpleQuestion()))(t)
	if got, want := strings.Join(deltas, ""), whole.Choices[0].Message.Content; len(deltas) != 20 || got != want {
		t.Fatalf("streamed %q, whole %q", deltas, want)
	}
}

func TestGoOpenAIChatCallsAToolAndAnswers(t *testing.T) {
	request := simpleQuestion()
	request.Tools = []goopenai.Tool{{
		Type:     goopenai.ToolTypeFunction,
		Function: &goopenai.FunctionDefinition{Name: "weather", Parameters: citySchema},
	}}
	request.ToolChoice = "required"
	message := must(simple(nil).CreateChatCompletion(deadline(t), request))(t).Choices[0].Message
	if len(message.ToolCalls) != 1 {
		t.Fatalf("%+v", message)
	}
	isCity(t, message.ToolCalls[0].Function.Arguments)
	request.Messages = append(request.Messages, message, goopenai.ChatCompletionMessage{
		Role: "tool", Content: "sunny", ToolCallID: message.ToolCalls[0].ID,
	})
	request.ToolChoice = "auto"
	if final := must(simple(nil).CreateChatCompletion(deadline(t), request))(t); final.Choices[0].Message.Content == "" {
		t.Fatalf("%+v", final)
	}
}

func TestGoOpenAIChatFollowsASchema(t *testing.T) {
	request := simpleQuestion()
	request.ResponseFormat = &goopenai.ChatCompletionResponseFormat{
		Type: goopenai.ChatCompletionResponseFormatTypeJSONSchema,
		JSONSchema: &goopenai.ChatCompletionResponseFormatJSONSchema{
			Name: "forecast", Strict: true, Schema: raw(forecastSchema),
		},
	}
	isForecast(t, must(simple(nil).CreateChatCompletion(deadline(t), request))(t).Choices[0].Message.Content)
}

func TestGoOpenAILegacyCompletionEchoes(t *testing.T) {
	answer := must(simple(nil).CreateCompletion(deadline(t), goopenai.CompletionRequest{
		Model: "gpt-3.5-turbo-instruct", Prompt: "Once upon a time", Echo: true, LogProbs: 1, MaxTokens: 1,
	}))(t)
	probabilities := answer.Choices[0].LogProbs
	if len(probabilities.TokenLogprobs) != 5 || probabilities.TextOffset[0] != 0 {
		t.Fatalf("not those of four tokens and one: %+v", probabilities)
	}
}

func simpleAsked() goopenai.CreateResponseRequest {
	return goopenai.CreateResponseRequest{Model: model, Input: "What is the weather?"}
}

// readResponse reads a stream of Responses to its end, and returns its deltas and the last event's type.
func readResponse(ctx context.Context, client *goopenai.Client) (text string, last string, err error) {
	stream, err := client.CreateResponseStream(ctx, simpleAsked())
	if err != nil {
		return "", "", err
	}
	defer stream.Close()
	for {
		event, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return text, last, nil
		}
		if err != nil {
			return text, last, err
		}
		last = string(event.Type)
		if event.Type == goopenai.ResponseStreamEventOutputTextDelta {
			text += event.Delta
		}
	}
}

func TestGoOpenAIResponsesAnswer(t *testing.T) {
	answer := must(simple(nil).CreateResponse(deadline(t), simpleAsked()))(t)
	if answer.Status != "completed" || answer.GetOutputText() == "" {
		t.Fatalf("%+v", answer)
	}
}

func TestGoOpenAIResponsesStream(t *testing.T) {
	text, last, err := readResponse(deadline(t), simple(nil))
	if err != nil || text == "" || last != "response.completed" {
		t.Fatalf("%q, last event %s, %v", text, last, err)
	}
}

func TestGoOpenAIResponsesFailInMidStream(t *testing.T) {
	client := simple(headers{"X-FAULT-KIND": "error", "X-FAULT-AFTER-TOKENS": "3"})
	if text, last, err := readResponse(deadline(t), client); err == nil && last != "response.failed" {
		t.Fatalf("%q, last event %s and no error", text, last)
	}
}

func TestGoOpenAIEmbeddings(t *testing.T) {
	answer := must(simple(nil).CreateEmbeddings(deadline(t), goopenai.EmbeddingRequestStrings{
		Model: goopenai.SmallEmbedding3, Input: []string{"a cat", "a dog"},
	}))(t)
	if len(answer.Data) != 2 || len(answer.Data[1].Embedding) != 1536 {
		t.Fatal("not two vectors of 1536 numbers")
	}
}

func TestGoOpenAIAFailureIsAnError(t *testing.T) {
	_, err := simple(headers{"X-FAULT-STATUS": "429"}).CreateChatCompletion(deadline(t), simpleQuestion())
	var failed *goopenai.APIError
	if !errors.As(err, &failed) || failed.HTTPStatusCode != 429 || failed.Code != "rate_limit_exceeded" {
		t.Fatalf("%v", err)
	}
}

func TestGoOpenAIChatFailsInMidStream(t *testing.T) {
	client := simple(headers{"X-FAULT-KIND": "error", "X-FAULT-AFTER-TOKENS": "3"})
	deltas, err := read(deadline(t), client, simpleQuestion())
	if err == nil || len(deltas) != 3 {
		t.Fatalf("%q, error %v", deltas, err)
	}
}

func TestGoOpenAIReadsPastComments(t *testing.T) {
	if deltas := must(read(deadline(t), simple(comments), simpleQuestion()))(t); len(deltas) != 20 {
		t.Fatalf("%d deltas", len(deltas))
	}
	needComments(t)
}

func TestGoOpenAIModerates(t *testing.T) {
	answer := must(simple(nil).Moderations(deadline(t), goopenai.ModerationRequest{Input: "hi"}))(t)
	if len(answer.Results) != 1 || answer.Results[0].Flagged {
		t.Fatalf("%+v", answer)
	}
}
