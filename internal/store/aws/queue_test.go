package aws

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/precast-ota/precast/builder"
)

func TestSendRefuses(t *testing.T) {
	q, _ := fakeQueue(t, fakeJSON{}) // that fails on any request
	for what, body := range map[string]string{
		"an empty message":   "",
		"more than 1 MiB":    strings.Repeat("x", maxMessage+1),
		"a NUL":              "a\x00b",
		"an escape":          "\x1b[0m",
		"what is not UTF-8":  "\xff\xfe",
		"a surrogate":        "\xed\xa0\x80",
		"U+FFFE":             "\ufffe",
		"U+FFFF":             "\uffff",
		"a cut-off sequence": "ü"[:1],
	} {
		if err := q.Send(t.Context(), []byte("good"), []byte(body)); err == nil || !strings.Contains(err.Error(), "message 2 of 2") {
			t.Errorf("Send of %s = %v", what, err)
		}
	}
	for _, body := range []string{"\t\r\n ", "\u007f\u0080\u009f", "\ud7ff\ue000\ufffd", "\U00010000\U0010ffff"} {
		if err := checkMessage([]byte(body)); err != nil {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestSendBatches(t *testing.T) {
	var got []string
	q, _ := fakeQueue(t, fakeJSON{"SendMessageBatch": func(in map[string]any) (int, any) {
		entries := in["Entries"].([]any)
		sizes := ""
		for _, e := range entries {
			sizes += fmt.Sprint(len(e.(map[string]any)["MessageBody"].(string)), " ")
		}
		got = append(got, strings.TrimSpace(sizes))
		return 200, map[string]any{}
	}})
	var bodies [][]byte
	for _, size := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, maxMessage - 12, 1, maxMessage, maxMessage, 5} {
		bodies = append(bodies, []byte(strings.Repeat("x", size)))
	}
	if err := q.Send(t.Context(), bodies...); err != nil {
		t.Fatal(err)
	}
	want := []string{"1 2 3 4 5 6 7 8 9 10", fmt.Sprint("11 ", maxMessage-12, " 1"), fmt.Sprint(maxMessage), fmt.Sprint(maxMessage), "5"}
	if !slices.Equal(got, want) {
		t.Errorf("requests of %q, want %q", got, want)
	}
}

// sends answers each request with the IDs that fail, and records the bodies of each.
func sends(got *[]string, senderFault bool, failures ...string) fakeJSON {
	return fakeJSON{"SendMessageBatch": func(in map[string]any) (int, any) {
		bodies := ""
		for _, e := range in["Entries"].([]any) {
			bodies += e.(map[string]any)["MessageBody"].(string)
		}
		n := len(*got)
		*got = append(*got, bodies)
		var failed []any
		for _, id := range strings.Fields(failures[min(n, len(failures)-1)]) {
			failed = append(failed, map[string]any{"Id": id, "Code": "InternalError", "Message": "the fake says so", "SenderFault": senderFault})
		}
		return 200, map[string]any{"Failed": failed}
	}}
}

func TestSendPartialFailure(t *testing.T) {
	for _, test := range []struct {
		name        string
		senderFault bool
		failures    []string
		want        []string // bodies of each request
		ok          bool
	}{
		{"mended", false, []string{"1 3", "3", ""}, []string{"abcd", "bd", "d"}, true},
		{"for ever", false, []string{"2"}, append([]string{"abcd"}, slices.Repeat([]string{"c"}, attempts-1)...), false},
		{"sender's fault", true, []string{"2"}, []string{"abcd"}, false},
	} {
		var got []string
		q, slept := fakeQueue(t, sends(&got, test.senderFault, test.failures...))
		err := q.Send(t.Context(), []byte("a"), []byte("b"), []byte("c"), []byte("d"))
		if (err == nil) != test.ok || !slices.Equal(got, test.want) || len(*slept) != len(test.want)-1 {
			t.Errorf("%s: Send = %v after %q, want %q, and %d waits", test.name, err, got, test.want, len(*slept))
		}
		if err != nil && !strings.Contains(err.Error(), "the fake says so") {
			t.Errorf("%s: %v does not say why", test.name, err)
		}
	}
}

// A wait longer than SQS's is several.
func TestReceiveWaitsLong(t *testing.T) {
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	var waits []int
	q, _ := fakeQueue(t, fakeJSON{"ReceiveMessage": func(in map[string]any) (int, any) {
		wait, _ := in["WaitTimeSeconds"].(float64) // 0 is left out
		waits = append(waits, int(wait))
		clock = clock.Add(time.Duration(wait) * time.Second)
		return 200, map[string]any{}
	}})
	q.now = func() time.Time { return clock }
	for _, test := range []struct {
		wait time.Duration
		want []int
	}{
		{0, []int{0}}, {-time.Second, []int{0}}, {time.Millisecond, []int{1}}, {time.Second, []int{1}},
		{20 * time.Second, []int{20}}, {45*time.Second + 1, []int{20, 20, 6}},
	} {
		waits = nil
		if m, err := q.Receive(t.Context(), 1, time.Minute, test.wait); len(m) != 0 || err != nil {
			t.Errorf("Receive = %+v, %v", m, err)
		}
		if !slices.Equal(waits, test.want) {
			t.Errorf("Receive(%v) asked with waits of %v s, want %v", test.wait, waits, test.want)
		}
	}
	for _, visibility := range []time.Duration{-1, maxVisibility + 1} {
		if _, err := q.Receive(t.Context(), 1, visibility, 0); err == nil {
			t.Errorf("Receive hides for %v", visibility)
		}
	}
	if m, err := q.Receive(t.Context(), 0, time.Minute, time.Hour); len(m) != 0 || err != nil {
		t.Errorf("Receive of nothing = %+v, %v", m, err)
	}
}

func TestReceipts(t *testing.T) {
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	asked := 0
	q, _ := fakeQueue(t, fakeJSON{
		"ReceiveMessage": func(map[string]any) (int, any) {
			return 200, map[string]any{"Messages": []any{map[string]any{"MessageId": "m", "ReceiptHandle": "r", "Body": "b"}}}
		},
		"ChangeMessageVisibility": func(map[string]any) (int, any) { asked++; return 200, map[string]any{} },
	})
	q.now = func() time.Time { return clock }
	if m, err := q.Receive(t.Context(), 1, 10*time.Second, 0); err != nil || len(m) != 1 || m[0].Receives != 1 {
		t.Fatalf("Receive = %+v, %v", m, err)
	}
	extend := func(after time.Duration, receipt string, want error) {
		t.Helper()
		clock = clock.Add(after)
		if err := q.Extend(t.Context(), receipt, 10*time.Second); !errors.Is(err, want) {
			t.Errorf("Extend(%q) = %v, want %v", receipt, err, want)
		}
	}
	extend(9*time.Second, "r", nil)
	extend(9*time.Second, "r", nil)
	extend(10*time.Second, "r", builder.ErrNotExist)
	extend(0, "r", builder.ErrNotExist)
	extend(0, "another process's", nil)
	if asked != 3 {
		t.Errorf("%d requests, want 3", asked)
	}
	// It is forgotten when nobody can be working on it any more.
	q.receipts.add(clock, "x", clock)
	clock = clock.Add(forgetAfter + time.Minute)
	q.receipts.add(clock, "y", clock)
	if n := len(q.receipts.until); n != 1 {
		t.Errorf("%d receipts are remembered", n)
	}
}

func TestReceiptErrors(t *testing.T) {
	for code, message := range map[string]string{
		"ReceiptHandleIsInvalid":                      "The input receipt handle is invalid.",
		"com.amazonaws.sqs#ReceiptHandleIsInvalid":    "The input receipt handle is invalid.",
		"MessageNotInflight":                          "The specified message isn't in flight.",
		"InvalidParameterValue":                       "Value r for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change.",
		"com.amazonaws.sqs#QueueDoesNotExist":         "",
		"com.amazon.coral.service#InvalidAction":      "",
		"com.amazon.coral.service#AccessDenied":       "",
		"com.amazonaws.sqs#InvalidParameterValueElse": "Value for parameter VisibilityTimeout is invalid",
	} {
		fail := func(map[string]any) (int, any) { return 400, map[string]any{"__type": code, "message": message} }
		q, _ := fakeQueue(t, fakeJSON{"ChangeMessageVisibility": fail, "DeleteMessage": fail})
		gone := message != "" && !strings.Contains(message, "VisibilityTimeout is")
		if err := q.Extend(t.Context(), "r", time.Second); err == nil || errors.Is(err, builder.ErrNotExist) != gone {
			t.Errorf("%s: Extend = %v", code, err)
		}
		if err := q.Delete(t.Context(), "r"); (err == nil) != gone {
			t.Errorf("%s: Delete = %v", code, err)
		}
	}
}

// A redrive that fails in between loses nothing, and says how far it came.
func TestRedriveFails(t *testing.T) {
	rounds, released := 0, 0
	sendOK := true
	fake := fakeJSON{
		"ReceiveMessage": func(map[string]any) (int, any) {
			rounds++
			var messages []any
			for i := range 10 {
				messages = append(messages, map[string]any{"MessageId": "m", "ReceiptHandle": fmt.Sprint(rounds, ".", i), "Body": "b"})
			}
			return 200, map[string]any{"Messages": messages}
		},
		"SendMessageBatch": func(map[string]any) (int, any) {
			if sendOK {
				return 200, map[string]any{}
			}
			return 400, map[string]any{"__type": "AccessDenied"}
		},
		"DeleteMessageBatch": func(map[string]any) (int, any) { sendOK = false; return 200, map[string]any{} },
		"ChangeMessageVisibilityBatch": func(in map[string]any) (int, any) {
			released += len(in["Entries"].([]any))
			return 200, map[string]any{}
		},
	}
	q, _ := fakeQueue(t, fake)
	if n, err := q.Redrive(t.Context()); n != 10 || err == nil || released != 10 {
		t.Errorf("Redrive = %d, %v, and released %d", n, err, released)
	}
}

func TestDeadLettersWithoutURL(t *testing.T) {
	q, _ := fakeQueue(t, fakeJSON{"GetQueueAttributes": func(map[string]any) (int, any) {
		return 200, map[string]any{"Attributes": map[string]any{
			"ApproximateNumberOfMessages": "1", "ApproximateNumberOfMessagesDelayed": "2", "ApproximateNumberOfMessagesNotVisible": "3",
		}}
	}})
	if w, f, d, err := q.Depth(t.Context()); w != 3 || f != 3 || d != 6 || err != nil {
		t.Errorf("Depth = %d, %d, %d, %v", w, f, d, err)
	}
	q.dead = ""
	if _, err := q.Dead(t.Context(), 1); !errors.Is(err, errNoDeadLetterURL) {
		t.Errorf("Dead = %v", err)
	}
	if _, err := q.Redrive(t.Context()); !errors.Is(err, errNoDeadLetterURL) {
		t.Errorf("Redrive = %v", err)
	}
	if _, _, _, err := q.Depth(t.Context()); !errors.Is(err, errNoDeadLetterURL) {
		t.Errorf("Depth = %v", err)
	}
}
