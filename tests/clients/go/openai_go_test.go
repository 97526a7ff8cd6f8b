// openai-go: chat, embeddings, moderations, and what the other checks share.
package clients

import (
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/shared"
)

const model = "gpt-4o"

var baseURL = os.Getenv("EMULATOR_URL") + "/v1"

var client = openai.NewClient(option.WithBaseURL(baseURL), option.WithAPIKey("dummy-key"))

// forecast is what a schema asks for.
type forecast struct {
	City    string  `json:"city"`
	Degrees float64 `json:"degrees"`
	Days    []int   `json:"days"`
}

var forecastSchema = map[string]any{
	"type": "object",
	"properties": map[string]any{
		"city":    map[string]any{"type": "string"},
		"degrees": map[string]any{"type": "number"},
		"days":    map[string]any{"type": "array", "items": map[string]any{"type": "integer"}},
	},
	"required":             []string{"city", "degrees", "days"},
	"additionalProperties": false,
}

var citySchema = map[string]any{
	"type":                 "object",
	"properties":           map[string]any{"city": map[string]any{"type": "string"}},
	"required":             []string{"city"},
	"additionalProperties": false,
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

func isForecast(t *testing.T, text string) {
	t.Helper()
	var value forecast
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&value); err != nil || value.City == "" {
		t.Fatalf("not a forecast: %q: %v", text, err)
	}
}

func isCity(t *testing.T, arguments string) {
	t.Helper()
	var value struct{ City string }
	if err := json.Unmarshal([]byte(arguments), &value); err != nil || value.City == "" {
		t.Fatalf("no city in %q: %v", arguments, err)
	}
}

func question(seed int64) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model:    model,
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("What is the weather?")},
		Seed:     openai.Int(seed),
	}
}

func weatherTool() openai.ChatCompletionToolUnionParam {
	return openai.ChatCompletionFunctionTool(shared.FunctionDefinitionParam{
		Name: "weather", Parameters: citySchema,
	})
}

// streamed reads a chat to its end and counts the chunks that hold content.
func streamed(t *testing.T, params openai.ChatCompletionNewParams, options ...option.RequestOption) (openai.ChatCompletion, int, error) {
	t.Helper()
	stream := client.Chat.Completions.NewStreaming(deadline(t), params, options...)
	defer stream.Close()
	accumulator, deltas := openai.ChatCompletionAccumulator{}, 0
	for stream.Next() {
		chunk := stream.Current()
		if !accumulator.AddChunk(chunk) {
			t.Fatalf("chunk does not fit: %s", chunk.RawJSON())
		}
		if len(chunk.Choices) > 0 && chunk.Choices[0].Delta.Content != "" {
			deltas++
		}
	}
	return accumulator.ChatCompletion, deltas, stream.Err()
}

func TestOpenAIGoChatIsTheSameWholeAndStreamed(t *testing.T) {
	whole := must(client.Chat.Completions.New(deadline(t), question(1)))(t)
	params := question(1)
	params.StreamOptions.IncludeUsage = openai.Bool(true)
	stream, deltas, err := streamed(t, params)
	if err != nil || deltas != 20 || stream.Usage.CompletionTokens != 20 {
		t.Fatalf("%d deltas, %+v, %v", deltas, stream.Usage, err)
	}
	if got, want := stream.Choices[0].Message.Content, whole.Choices[0].Message.Content; got != want {
		t.Fatalf("streamed %q, whole %q", got, want)
	}
}

func TestOpenAIGoChatCallsAToolAndAnswers(t *testing.T) {
	params := question(1)
	params.Tools = []openai.ChatCompletionToolUnionParam{weatherTool()}
	params.ToolChoice.OfAuto = openai.String("required")
	answer, _, err := streamed(t, params)
	if err != nil || len(answer.Choices[0].Message.ToolCalls) != 1 {
		t.Fatalf("%s, %v", answer.RawJSON(), err)
	}
	call := answer.Choices[0].Message.ToolCalls[0]
	isCity(t, call.Function.Arguments)
	params.Messages = append(params.Messages, answer.Choices[0].Message.ToParam(), openai.ToolMessage("sunny", call.ID))
	params.ToolChoice.OfAuto = openai.String("auto")
	final := must(client.Chat.Completions.New(deadline(t), params))(t)
	if final.Choices[0].FinishReason == "tool_calls" || final.Choices[0].Message.Content == "" {
		t.Fatal(final.RawJSON())
	}
}

func TestOpenAIGoChatFollowsASchema(t *testing.T) {
	params := question(1)
	params.ResponseFormat.OfJSONSchema = &shared.ResponseFormatJSONSchemaParam{
		JSONSchema: shared.ResponseFormatJSONSchemaJSONSchemaParam{
			Name: "forecast", Strict: openai.Bool(true), Schema: forecastSchema,
		},
	}
	isForecast(t, must(client.Chat.Completions.New(deadline(t), params))(t).Choices[0].Message.Content)
}

func TestOpenAIGoEmbeddings(t *testing.T) {
	answer := must(client.Embeddings.New(deadline(t), openai.EmbeddingNewParams{
		Model: openai.EmbeddingModelTextEmbedding3Small,
		Input: openai.EmbeddingNewParamsInputUnion{OfArrayOfStrings: []string{"a cat", "a dog"}},
	}))(t)
	if len(answer.Data) != 2 || len(answer.Data[1].Embedding) != 1536 {
		t.Fatal("not two vectors of 1536 numbers")
	}
}

func TestOpenAIGoModerates(t *testing.T) {
	answer := must(client.Moderations.New(deadline(t), openai.ModerationNewParams{
		Input: openai.ModerationNewParamsInputUnion{OfString: openai.String("hi")},
	}))(t)
	if len(answer.Results) != 1 || answer.Results[0].Flagged {
		t.Fatal(answer.RawJSON())
	}
}
