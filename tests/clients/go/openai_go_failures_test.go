// openai-go: refusals, failures and retries, and comments in streams.
package clients

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

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

var comments = headers{"X-TTFT-MS": "400", "X-KEEPALIVE-MS": "100"}

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
