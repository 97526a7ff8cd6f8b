// openai-go: pools of connections, asked for something every 5, 30 and 65 s.
package clients

import (
	"fmt"
	"net/http"
	"net/http/httptrace"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/openai/openai-go/v3/option"
)

const connections, rounds = 50, 4

// shortened returns a pause as CLIENTS_TIME says, a tenth of its time by default.
func shortened(seconds float64) time.Duration {
	factor, err := strconv.ParseFloat(os.Getenv("CLIENTS_TIME"), 64)
	if err != nil {
		factor = 0.1
	}
	return time.Duration(seconds * factor * float64(time.Second))
}

func TestOpenAIGoPoolsSeeNoReset(t *testing.T) {
	for _, seconds := range []float64{5, 30, 65} {
		t.Run(fmt.Sprintf("every %g s", seconds), func(t *testing.T) {
			t.Parallel()
			var made atomic.Int32
			trace := &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
				if !got.Reused {
					made.Add(1)
				}
			}}
			pool := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
			for round := 0; round < rounds; round++ {
				if round > 0 {
					time.Sleep(shortened(seconds))
				}
				errs := make(chan error, connections)
				for number := 0; number < connections; number++ {
					go func() {
						ctx := httptrace.WithClientTrace(deadline(t), trace)
						// Most wait for the first token at once.
						_, err := client.Chat.Completions.New(ctx, question(1), option.WithHTTPClient(pool),
							option.WithMaxRetries(0), option.WithHeader("X-TTFT-MS", "1000"))
						errs <- err
					}()
				}
				for number := 0; number < connections; number++ {
					if err := <-errs; err != nil {
						t.Fatal(err)
					}
				}
			}
			// A pool makes a connection where all that it has are busy, and so no more than these.
			if made.Load() > connections {
				t.Fatalf("%d connections", made.Load())
			}
		})
	}
}
