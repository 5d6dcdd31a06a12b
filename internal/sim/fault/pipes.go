package fault

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
)

// Pipes is a listener whose connections are in memory, as a synctest bubble needs them.
type Pipes struct {
	host   string
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// NewPipes returns a listener at the address host.
func NewPipes(host string) *Pipes {
	return &Pipes{host: host, conns: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial connects to the listener.
func (l *Pipes) Dial(ctx context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, fmt.Errorf("dialing %s: %w", l.host, net.ErrClosed)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (l *Pipes) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	case c := <-l.conns:
		return c, nil
	}
}

// Close implements net.Listener.
func (l *Pipes) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Pipes) Addr() net.Addr { return addr(l.host) }

type addr string

func (addr) Network() string  { return "pipe" }
func (a addr) String() string { return string(a) }

// Mortal is a connection that dies without a word once Dead is set: what is written to it
// from then on goes nowhere, and nobody is told.
type Mortal struct {
	net.Conn
	Dead *atomic.Bool
}

// Write implements net.Conn.
func (c Mortal) Write(b []byte) (int, error) {
	if c.Dead.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}
