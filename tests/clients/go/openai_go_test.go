// openai-go: chat, Responses over HTTP and over a websocket, embeddings, failures.
package clients

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"
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

func asked() responses.ResponseNewParams {
	return responses.ResponseNewParams{
		Model: model,
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("What is the weather?")},
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

func TestOpenAIGoResponsesAnswer(t *testing.T) {
	answer := must(client.Responses.New(deadline(t), asked()))(t)
	if answer.Status != "completed" || answer.OutputText() == "" || answer.Usage.OutputTokens != 20 {
		t.Fatal(answer.RawJSON())
	}
}

func TestOpenAIGoResponsesStream(t *testing.T) {
	stream := client.Responses.NewStreaming(deadline(t), asked())
	defer stream.Close()
	var text strings.Builder
	var final responses.Response
	for stream.Next() {
		switch event := stream.Current(); event.Type {
		case "response.output_text.delta":
			text.WriteString(event.Delta)
		case "response.completed":
			final = event.Response
		}
	}
	if err := stream.Err(); err != nil || text.String() != final.OutputText() || text.Len() == 0 {
		t.Fatalf("streamed %q, at the end %q, %v", text.String(), final.OutputText(), err)
	}
}

func TestOpenAIGoResponsesCallAToolAndAnswer(t *testing.T) {
	params := asked()
	params.Tools = []responses.ToolUnionParam{responses.ToolParamOfFunction("weather", citySchema, true)}
	params.ToolChoice.OfToolChoiceMode = param.NewOpt(responses.ToolChoiceOptionsRequired)
	first := must(client.Responses.New(deadline(t), params))(t)
	call := first.Output[0].AsFunctionCall()
	isCity(t, call.Arguments)
	output := responses.ResponseInputItemParamOfFunctionCallOutput("sunny")
	output.OfFunctionCallOutput.CallID = openai.String(call.CallID)
	params.ToolChoice.OfToolChoiceMode = param.NewOpt(responses.ToolChoiceOptionsAuto)
	params.PreviousResponseID = openai.String(first.ID)
	params.Input = responses.ResponseNewParamsInputUnion{OfInputItemList: responses.ResponseInputParam{output}}
	if second := must(client.Responses.New(deadline(t), params))(t); second.OutputText() == "" {
		t.Fatal(second.RawJSON())
	}
}

func TestOpenAIGoResponsesFollowASchema(t *testing.T) {
	params := asked()
	params.Text.Format = responses.ResponseFormatTextConfigParamOfJSONSchema("forecast", forecastSchema)
	isForecast(t, must(client.Responses.New(deadline(t), params))(t).OutputText())
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

func TestOpenAIGoARefusalIsAnError(t *testing.T) {
	params := question(1)
	params.Temperature = openai.Float(7)
	_, err := client.Chat.Completions.New(deadline(t), params)
	var refused *openai.Error
	if !errors.As(err, &refused) || refused.StatusCode != http.StatusBadRequest || refused.Param != "temperature" {
		t.Fatalf("%v", err)
	}
}

func TestOpenAIGoTriesAgain(t *testing.T) {
	var answered *http.Response
	must(client.Chat.Completions.New(deadline(t), question(1),
		option.WithHeader("X-FAULT-STATUS", "503"), option.WithHeader("X-FAULT-ATTEMPTS", "2"),
		option.WithHeader("X-FAULT-RETRY-AFTER-MS", "10"), option.WithResponseInto(&answered)))(t)
	if tries := answered.Request.Header.Get("X-Stainless-Retry-Count"); tries != "2" {
		t.Fatalf("answered at retry %q", tries)
	}
}

var midStream = []option.RequestOption{
	option.WithHeader("X-FAULT-KIND", "error"), option.WithHeader("X-FAULT-AFTER-TOKENS", "3"),
}

func TestOpenAIGoChatFailsInMidStream(t *testing.T) {
	_, deltas, err := streamed(t, question(1), midStream...)
	if err == nil || deltas != 3 {
		t.Fatalf("%d deltas, error %v", deltas, err)
	}
}

func TestOpenAIGoResponsesFailInMidStream(t *testing.T) {
	stream := client.Responses.NewStreaming(deadline(t), asked(), midStream...)
	defer stream.Close()
	failed := false
	for stream.Next() {
		failed = failed || stream.Current().Type == "response.failed"
	}
	if stream.Err() == nil && !failed {
		t.Fatal("neither an error nor response.failed")
	}
}

var comments = headers{"X-TTFT-MS": "300", "X-KEEPALIVE-MS": "100"}

// needComments fails unless the server sends comments, which clients hide.
func needComments(t *testing.T) {
	t.Helper()
	body := `{"model": "gpt-4o", "stream": true, "messages": [{"role": "user", "content": "hi"}]}`
	request := must(http.NewRequestWithContext(deadline(t), "POST", baseURL+"/chat/completions", strings.NewReader(body)))(t)
	request.Header.Set("Content-Type", "application/json")
	answer := must(comments.Do(request))(t)
	defer answer.Body.Close()
	if text := must(io.ReadAll(answer.Body))(t); !strings.HasPrefix(string(text), ":") {
		t.Fatalf("no comment at the start of %.40q", text)
	}
}

func TestOpenAIGoReadsPastComments(t *testing.T) {
	_, deltas, err := streamed(t, question(1), option.WithHTTPClient(comments))
	if err != nil || deltas != 20 {
		t.Fatalf("%d deltas, %v", deltas, err)
	}
	needComments(t)
}

// CLIENTS_IDLE_S says for how long pools leave their connections idle: longer than many servers wait.
func idle() time.Duration {
	if seconds, err := strconv.Atoi(os.Getenv("CLIENTS_IDLE_S")); err == nil {
		return time.Duration(seconds) * time.Second
	}
	return 6 * time.Second
}

func TestOpenAIGoUsesIdleConnectionsAgain(t *testing.T) {
	const connections = 20
	var reused atomic.Int32
	trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if got.Reused && got.IdleTime > idle()/2 {
			reused.Add(1)
		}
	}}
	pool := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	for round := 0; round < 2; round++ {
		errs := make(chan error, connections)
		for number := 0; number < connections; number++ {
			go func() {
				ctx := httptrace.WithClientTrace(deadline(t), trace)
				_, err := client.Chat.Completions.New(ctx, question(1), option.WithHTTPClient(pool),
					option.WithMaxRetries(0), option.WithHeader("X-TTFT-MS", "300"))
				errs <- err
			}()
		}
		for number := 0; number < connections; number++ {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		if round == 0 {
			time.Sleep(idle())
		}
	}
	if reused.Load() != connections {
		t.Fatalf("%d of %d connections were used again", reused.Load(), connections)
	}
}

func TestOpenAIGoResponsesOverAWebsocket(t *testing.T) {
	ctx := deadline(t)
	connection := must(client.Responses.Connect(ctx, responses.ResponseConnectionOptions{}))(t)
	defer connection.Close()
	create := responses.ResponsesClientEventResponseCreateParam{Model: model}
	create.Input.OfString = openai.String("What is the weather?")
	if err := connection.Create(ctx, create); err != nil {
		t.Fatal(err)
	}
	if answer := must(connection.FinalResponse(ctx))(t); answer.OutputText() == "" {
		t.Fatal(answer.RawJSON())
	}
}

func TestOpenAIGoCompacts(t *testing.T) {
	answer := must(client.Responses.Compact(deadline(t), responses.ResponseCompactParams{
		Model: model,
		Input: responses.ResponseCompactParamsInputUnion{OfString: openai.String("hi")},
	}))(t)
	if answer.Object != "response.compaction" || len(answer.Output) == 0 {
		t.Fatal(answer.RawJSON())
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
