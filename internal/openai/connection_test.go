package openai

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

// mortal is a connection that dies without a word: what is written to it from then
// on goes nowhere, and nobody is told.
type mortal struct {
	net.Conn
	dead *atomic.Bool
}

func (c mortal) Write(b []byte) (int, error) {
	if c.dead.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// TestDeadConnection: an HTTP/2 connection that has died without a word is given up
// within a few pings, and not used for one attempt after the other.
func TestDeadConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
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
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			client, served := net.Pipe()
			listener.conns <- served
			if dialed++; dialed == 1 {
				return mortal{client, &dead}, nil
			}
			return client, nil
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
