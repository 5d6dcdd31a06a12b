package openai

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/auditlog/internal/sim/fault"
)

// TestDeadConnection: an HTTP/2 connection that has died without a word is given up
// within a few pings, and not used for one attempt after the other.
func TestDeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := fault.NewPipes("example.com:443")
		var versions atomic.Int32
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			versions.Store(int32(r.ProtoMajor))
			io.WriteString(w, goodPage)
		}))
		server.Listener.Close()
		server.Listener, server.EnableHTTP2 = listener, true
		server.StartTLS()
		defer server.Close()

		var dead atomic.Bool
		dialed := 0
		transport := NewTransport()
		defer transport.CloseIdleConnections()
		transport.Proxy = nil
		transport.TLSClientConfig = &tls.Config{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			client, err := listener.Dial(ctx)
			if dialed++; err == nil && dialed == 1 {
				client = fault.Mortal{Conn: client, Dead: &dead}
			}
			return client, err
		}
		c := New(Options{Base: "https://example.com/v1", Key: testKey, Transport: transport, Backoff: DefaultBackoff})
		read := func() time.Duration {
			t.Helper()
			began := time.Now()
			if p, err := c.Page(t.Context(), testRequest, new(bytes.Buffer), func(error, time.Duration) {}); err != nil || len(p.Records) != 1 {
				t.Fatalf("after %v: %+v, %v", time.Since(began), p, err)
			}
			return time.Since(began)
		}
		read()
		read()
		if dialed != 1 || versions.Load() != 2 {
			t.Fatalf("%d connections of HTTP/%d", dialed, versions.Load())
		}
		dead.Store(true)
		if took := read(); took > time.Minute || dialed != 2 {
			t.Errorf("took %v, %d connections", took, dialed)
		}
	})
}
