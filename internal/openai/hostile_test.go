package openai

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/auditlog/internal/audit"
)

// rawServer answers request n on each connection with the bytes that answer gives, and closes it.
func rawServer(t *testing.T, answer func(n int) string) (base string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var n atomic.Int32
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
					return
				}
				io.WriteString(conn, answer(int(n.Add(1))))
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

func http200(body string, headers ...string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s", strings.Join(append(headers, ""), "\r\n"), len(body), body)
}

func zipped(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.String()
}

// TestHostileAnswers: whatever bytes come instead of a page, they end in an error that says so and in no
// record. What may be an accident is asked for again.
func TestHostileAnswers(t *testing.T) {
	const gz = "Content-Encoding: gzip"
	whole := zipped(goodPage)
	broken := []byte(whole)
	broken[len(broken)-5] ^= 1 // of the checksum
	for _, tt := range []struct {
		name, raw string
		retried   bool
		want      string // part of the error
	}{
		{"nothing", "", true, "EOF"},
		{"no HTTP", "SSH-2.0-OpenSSH_9.9\r\n", true, "malformed HTTP"},
		{"no status", "HTTP/1.1 ok\r\n\r\n", true, "malformed HTTP"},
		{"a header without an end", "HTTP/1.1 200 OK\r\nDate: ", true, "EOF"},
		{"many hints, and no answer", strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 20_000), true, "header"},
		{"many headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Flood: 0123456789\r\n", 20_000) + "\r\n", true, "header"},
		{"an empty body", http200(""), true, "cut off"},
		{"white space alone", http200("\n \n"), true, "cut off"},
		{"a length that is too large", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + goodPage, true, "unexpected EOF"},
		{"a length that is too small", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + goodPage, true, "cut"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 50\r\nContent-Length: 60\r\n\r\n" + goodPage, true, "Content-Length"},
		{"no length, and a page that stops", "HTTP/1.1 200 OK\r\n\r\n" + goodPage[:60], true, "cut"},
		{"chunks that stop", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n" + goodPage[:32], true, "unexpected EOF"},
		{"chunks that are none", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + goodPage, true, "unexpected EOF"},
		{"gzip that stops", http200(whole[:len(whole)-20], gz), true, "unexpected EOF"},
		{"gzip that is none", http200(goodPage, gz), true, "gzip"},
		{"gzip with a wrong checksum", http200(string(broken), gz), true, "gzip"},
		{"gzip of gzip", http200(zipped(whole), gz), false, "no JSON list"},
		{"another coding", http200("\x28\xb5\x2f\xfd", "Content-Encoding: zstd"), false, "no JSON list"},
		{"a bomb", http200(zipped(strings.Repeat(" ", 40<<20)), gz), false, "larger than 32 MiB"},
		{"an error", http200(`{"error":{"message":"Something is wrong"}}`), false, "answered 200 OK: Something is wrong"},
		{"an error in lines", http200("{\n  \"error\": {\n    \"message\": \"Something is wrong\"\n  }\n}\n"), false, "answered 200 OK: Something is wrong"},
		{"HTML", http200("<html>Sign in</html>"), false, "Sign in"},
		{"null", http200("null"), false, "not null"},
		{"a bare array", http200(`[{"id":"a","effective_at":150}]`), false, "wanted an object"},
		{"lines", http200(`{"id":"a","effective_at":150}` + "\n" + `{"id":"b","effective_at":150}`), false, "follow it"},
		{"two pages", http200(goodPage + "\n" + goodPage), false, "follow it"},
		{"a page and more", http200(goodPage + "</body>"), false, "follow it"},
		{"a byte order mark", http200("\ufeff" + goodPage), false, "no JSON list"},
		{"UTF-16", http200("{\x00\"\x00"), false, "no JSON list"},
		{"deep nesting", http200(`{"object":"list","data":[{"id":"a","effective_at":150,"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000) + `}],"has_more":false}`), false, "no JSON list"},
		{"no content", "HTTP/1.1 204 No Content\r\n\r\n", false, "answered 204 No Content (the audit log API does not answer so"},
		{"part of a page", "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/100\r\nContent-Length: 10\r\n\r\n" + goodPage[:10], false, "a proxy or a cache on the way"},
		{"not modified", "HTTP/1.1 304 Not Modified\r\n\r\n", false, "answered 304 Not Modified (the audit log API does not answer so"},
		{"a redirect to itself", "HTTP/1.1 307 Temporary Redirect\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", false, "redirect not followed"},
		{"a page with another status", strings.Replace(http200(goodPage), "200 OK", "203 Non-Authoritative Information", 1), false, "203"},
		{"a page as an error", strings.Replace(http200(goodPage), "200 OK", "500 Internal Server Error", 1), true, "500"},
		{"another protocol", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + goodPage, false, "101"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, once := range []bool{false, true} {
				requests := 0
				base := rawServer(t, func(n int) string {
					if requests = n; once && n > 1 {
						return http200(goodPage)
					}
					return tt.raw
				})
				transport := NewTransport()
				defer transport.CloseIdleConnections()
				p, err := New(Options{Base: base, Key: testKey, Transport: transport, Backoff: quick}).Page(t.Context(), testRequest, new(bytes.Buffer), func(error, time.Duration) {})
				if once && tt.retried {
					if err != nil || requests != 2 || len(p.Records) != 1 {
						t.Errorf("then a page: %d requests, %+v, error %v", requests, p, err)
					}
					continue
				}
				want := 1
				if tt.retried {
					want = maxAttempts
				}
				var f *audit.Failure
				if !errors.As(err, &f) || len(p.Records) > 0 || requests != want || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 1000 {
					t.Errorf("%d requests, want %d; page %+v, error %v", requests, want, p, err)
				}
			}
		})
	}
}

// TestHTTP2Ends: an HTTP/2 stream or connection that ends within a page costs one more request.
func TestHTTP2Ends(t *testing.T) {
	for name, end := range map[string]func(*httptest.Server){
		"reset":      func(*httptest.Server) { panic(http.ErrAbortHandler) },
		"going away": func(*httptest.Server) { panic(http.ErrAbortHandler) },
		"closed":     (*httptest.Server).CloseClientConnections,
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			var server *httptest.Server
			server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) > 1 {
					io.WriteString(w, goodPage)
					return
				}
				if name == "going away" {
					w.Header().Set("Connection", "close") // GOAWAY, in HTTP/2
				}
				io.WriteString(w, goodPage[:50])
				http.NewResponseController(w).Flush()
				end(server)
			}))
			server.EnableHTTP2 = true
			server.StartTLS()
			defer server.Close()
			transport := NewTransport()
			defer transport.CloseIdleConnections()
			transport.TLSClientConfig = server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			transport.TLSClientConfig.NextProtos = nil
			var told retries
			p, err := New(Options{Base: server.URL, Key: testKey, Transport: transport, Backoff: quick}).Page(t.Context(), testRequest, new(bytes.Buffer), told.add)
			if err != nil || len(p.Records) != 1 || len(told.errs) != 1 || requests.Load() != 2 {
				t.Errorf("%+v, error %v; %d requests, told of %v", p, err, requests.Load(), told.errs)
			}
		})
	}
}
