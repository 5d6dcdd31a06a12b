package store

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/storage"
	"google.golang.org/api/option"

	"example.com/auditlog/internal/names"
)

// tooEarly answers before a request's end, and reads no more of it.
type tooEarly struct{}

func (tooEarly) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Body.Close()
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"bucket":"logs","name":"x","generation":"5"}`)), Request: r}, nil
}

// TestPutAnsweredTooEarly: such an answer says nothing, and does not hold up the run.
func TestPutAnsweredTooEarly(t *testing.T) {
	client, err := NewClient(t.Context(), option.WithHTTPClient(&http.Client{Transport: tooEarly{}}), option.WithoutAuthentication())
	if err != nil {
		t.Fatal(err)
	}
	st := New(client, Options{Layout: names.Layout{Bucket: "logs", Prefix: "feed", StateBucket: "logs", StateKey: stateKey}, Step: 40 * time.Millisecond})
	// No bubble: the client's goroutine never ends.
	if _, err := st.Put(t.Context(), st.States.Object("x"), "text/plain", make([]byte, 1<<20)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

// TestPutHTTP2Ends: an upload that an HTTP/2 server breaks off or refuses unread, as where it goes away, is sent again.
func TestPutHTTP2Ends(t *testing.T) {
	const ( // of frames
		data, headers, reset, settings, goAway = 0, 1, 3, 4, 7
		end, ack, endHeaders                   = 1, 1, 4
	)
	for name, refuse := range map[string]func(send func(kind, flags byte, stream uint32, payload []byte), stream uint32){
		"refused": func(send func(kind, flags byte, stream uint32, payload []byte), stream uint32) {
			send(reset, 0, stream, []byte{0, 0, 0, 7})
		},
		"broken off": func(send func(kind, flags byte, stream uint32, payload []byte), stream uint32) {
			send(reset, 0, stream, []byte{0, 0, 0, 2})
		},
		"going away": func(send func(kind, flags byte, stream uint32, payload []byte), _ uint32) {
			send(goAway, 0, 0, make([]byte, 8))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				serve := func(c net.Conn) {
					defer c.Close()
					out := make(chan []byte, 100) // neither side may wait for the other to read
					defer close(out)
					go func() {
						for frame := range out {
							_, _ = c.Write(frame)
						}
					}()
					send := func(kind, flags byte, stream uint32, payload []byte) {
						frame := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
						frame = binary.BigEndian.AppendUint32(append(frame, flags), stream)
						out <- append(frame, payload...)
					}
					in := bufio.NewReader(c)
					_, _ = in.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
					send(settings, 0, 0, nil)
					refused := uint32(0)
					for {
						var frame [9]byte
						if _, err := io.ReadFull(in, frame[:]); err != nil {
							return
						}
						size, stream := binary.BigEndian.Uint32(frame[:])>>8, binary.BigEndian.Uint32(frame[5:])
						_, _ = in.Discard(int(size))
						switch kind, flags := frame[3], frame[4]; {
						case kind == settings && flags&ack == 0:
							send(settings, ack, 0, nil)
						case kind == headers:
							requests++
						case kind == data && requests == 1:
							if refused != stream {
								refused = stream
								refuse(send, stream)
							}
						case kind == data && flags&end != 0:
							send(headers, endHeaders, stream, []byte{0x88}) // status 200
							send(data, end, stream, []byte(`{"bucket":"logs","name":"x","generation":"5"}`))
						}
					}
				}
				transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) {
					client, server := net.Pipe()
					go serve(server)
					return client, nil
				}}
				transport.Protocols.SetUnencryptedHTTP2(true)
				defer transport.CloseIdleConnections()
				client, err := NewClient(t.Context(), option.WithHTTPClient(&http.Client{Transport: transport}), option.WithoutAuthentication(), option.WithEndpoint("http://bucket/storage/v1/"))
				if err != nil {
					t.Fatal(err)
				}
				st := New(client, Options{Layout: names.Layout{Bucket: "logs", Prefix: "feed", StateBucket: "logs", StateKey: stateKey}, Step: step})
				attrs, err := st.Put(t.Context(), st.States.Object("x").If(storage.Conditions{DoesNotExist: true}), "text/plain", []byte("hello"))
				if err != nil || attrs.Generation != 5 || requests != 2 {
					t.Errorf("%+v, %v; %d requests", attrs, err, requests)
				}
			})
		})
	}
}
