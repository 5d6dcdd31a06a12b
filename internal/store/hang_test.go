package store

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/api/option"

	"example.com/auditlog/internal/sim/fault"
)

// TestHangs lets each request of each operation hang, before or after it was applied,
// once or twice: the operation sends it again, and gets there.
func TestHangs(t *testing.T) {
	operations := map[string]struct {
		stateBucket string
		do          func(t *testing.T, x *fixture) error
	}{
		"load": {"logs", func(t *testing.T, x *fixture) error {
			_, err := x.Load(t.Context())
			return err
		}},
		"commit": {"logs", func(t *testing.T, x *fixture) error {
			_, err := x.Commit(t.Context(), &Snapshot{generation: x.object(stateKey).Generation}, staging(stateOf(20), "mine.ndjson"))
			return err
		}},
		"publish by a rename": {"logs", func(t *testing.T, x *fixture) error {
			_, err := x.Publish(t.Context(), x.staging(), final)
			return err
		}},
		"publish by a copy": {"states", func(t *testing.T, x *fixture) error {
			_, err := x.Publish(t.Context(), x.staging(), final)
			return err
		}},
		"keep aside": {"logs", func(t *testing.T, x *fixture) error {
			s := x.staging()
			_, err := x.KeepAside(t.Context(), s, s.StagedGeneration)
			return err
		}},
		"look for what is staged": {"logs", func(t *testing.T, x *fixture) error {
			_, err := x.LookStaged(t.Context(), x.staging())
			return err
		}},
		"delete": {"logs", func(t *testing.T, x *fixture) error {
			x.staging()
			return x.DeleteStaged(t.Context(), staged)
		}},
		"stage little": {"logs", func(t *testing.T, x *fixture) error { return x.stage(`{"id":"a"}`).Close(t.Context()) }},
		"stage much": {"logs", func(t *testing.T, x *fixture) error {
			return x.stage(`{"id":"a","x":"`+strings.Repeat("x", chunkSize)+`"}`, `{"id":"b"}`).Close(t.Context())
		}},
	}
	for name, o := range operations {
		t.Run(name, func(t *testing.T) {
			for _, kind := range []fault.Kind{fault.Hang, fault.HangAfter} {
				for times := 1; times <= 2; times++ {
					for n, done := 1, false; !done; n++ {
						inBubble(t, o.stateBucket, func(t *testing.T, x *fixture) {
							x.write(stateKey, encoded(t, stateOf(10)))
							var struck atomic.Int32
							x.faults.Set(func(i int, _ *http.Request) fault.Fault {
								if i < n || int(struck.Load()) == times {
									return fault.Fault{}
								}
								struck.Add(1)
								return fault.Fault{Kind: kind}
							})
							began := time.Now()
							if err := o.do(t, x); err != nil {
								t.Errorf("%s at request %d, %d times: %v", kind, n, times, err)
							}
							if took := time.Since(began); took > 2*step {
								t.Errorf("%s at request %d, %d times: took %s", kind, n, times, took)
							}
							done = struck.Load() == 0
						})
					}
				}
			}
		})
	}
}

// TestDeadConnection: an HTTP/2 connection that has died without a word is replaced within
// one step.
func TestDeadConnection(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		x.write(stateKey, encoded(t, stateOf(10)))
		served := fault.NewPipes("example.com:443")
		server := httptest.NewUnstartedServer(x.faults)
		server.Listener.Close()
		server.Listener, server.EnableHTTP2 = served, true
		server.StartTLS()
		defer server.Close()

		var dead atomic.Bool
		dialed := 0
		production := http.DefaultTransport.(*http.Transport)
		transport := production.Clone()
		transport.Proxy = nil
		transport.TLSClientConfig = &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			client, err := served.Dial(ctx)
			if dialed++; err == nil && dialed == 1 {
				client = fault.Mortal{Conn: client, Dead: &dead}
			}
			return client, err
		}
		http.DefaultTransport = transport
		client, err := NewClient(t.Context(), option.WithEndpoint("https://example.com/storage/v1/"), option.WithoutAuthentication())
		http.DefaultTransport = production
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		st := New(client, x.Options)
		for range 2 {
			if _, err := st.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if dialed != 1 {
			t.Fatalf("%d connections", dialed)
		}
		dead.Store(true)
		began := time.Now()
		if _, err := st.Load(t.Context()); err != nil || dialed != 2 {
			t.Errorf("after %s, %d connections: %v", time.Since(began), dialed, err)
		}
	})
}
