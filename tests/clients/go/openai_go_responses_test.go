// openai-go: Responses over HTTP and over a websocket.
package clients

import (
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/packages/param"
	"github.com/openai/openai-go/v3/responses"
)

func asked() responses.ResponseNewParams {
	return responses.ResponseNewParams{
		Model: model,
		Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("What is the weather?")},
	}
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
