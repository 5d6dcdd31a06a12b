package harness

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// PublishedType is the type of a Pub/Sub message's event.
const PublishedType = "google.cloud.pubsub.topic.v1.messagePublished"

// EmptyMessage is an event's data with a message that asks for nothing.
const EmptyMessage = `{"message":{"data":"e30=","messageId":"1","publishTime":"2026-11-24T01:00:00Z"},"subscription":"projects/p/subscriptions/s"}`

// Message is an event's data with a message that says text.
func Message(text string) string {
	return `{"message":{"data":"` + base64.StdEncoding.EncodeToString([]byte(text)) + `","messageId":"1"}}`
}

// Command is a command of its own with these settings and nothing else of this
// process's environment.
func Command(t testing.TB, binary string, settings map[string]string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = []string{"FUNCTION_TARGET=main"}
	for name, value := range settings {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// Listen starts a command that serves on PORT of this machine, and ends it with
// the test.
func Listen(t testing.TB, cmd *exec.Cmd) (url string, log *Output) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd.Env = append(cmd.Env, "PORT="+address[strings.LastIndex(address, ":")+1:])
	log = &Output{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for range 20_000 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return "http://" + address, log
		}
		time.Sleep(time.Millisecond / 2) // nothing tells when another process listens
	}
	t.Fatalf("server does not listen:\n%s", log)
	return
}

// Post sends an event as Eventarc does, or where eventType is "" just data.
func Post(t testing.TB, url, eventType, data string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if eventType != "" {
		req.Header.Set("ce-specversion", "1.0")
		req.Header.Set("ce-id", "event-1")
		req.Header.Set("ce-source", "//pubsub.googleapis.com/projects/p/topics/t")
		req.Header.Set("ce-type", eventType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

// Output is what a process has written.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// WaitFor waits until the process has written that: what it writes comes through
// a pipe, and may come after its answer.
func (o *Output) WaitFor(t testing.TB, text string) {
	t.Helper()
	for range 2000 {
		if strings.Contains(o.String(), text) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("log lacks %q:\n%s", text, o)
}

// PeakMemory is the most memory, in MiB, that a process has held so far.
func PeakMemory(t testing.TB, pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Errorf("this test needs Linux's /proc: %v", err)
		return 0
	}
	kib := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	n, err := strconv.ParseInt(string(kib[1]), 10, 64)
	if err != nil {
		t.Error(err)
	}
	return n >> 10
}
