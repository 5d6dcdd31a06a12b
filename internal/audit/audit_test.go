package audit

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

func TestRequest(t *testing.T) {
	const span = "effective_at%5Bgte%5D=100&effective_at%5Blt%5D=201&limit=7"
	for _, tt := range []struct {
		request     Request
		query, what string
	}{
		{Request{Gte: 100, Lte: 200, Limit: 7}, span, "audit logs"},
		{Request{Limit: 1}, "effective_at%5Bgte%5D=0&effective_at%5Blt%5D=1&limit=1", "audit logs"},
		{Request{Gte: 100, Lte: 200, Limit: 7, After: "a&b"}, "after=a%26b&" + span, "audit logs"},
		{Request{Gte: 100, Lte: 200, Limit: 7, Tenant: true}, span + "&tenant_only=true", "tenant-scoped audit logs"},
		{Request{Gte: 100, Lte: 200, Limit: 7, Filter: "actor_ids%5B%5D=u"}, span + "&actor_ids%5B%5D=u", "audit logs"},
		{Request{100, 200, "x", 7, true, "actor_ids%5B%5D=u", true}, "after=x&" + span + "&tenant_only=true&actor_ids%5B%5D=u", "tenant-scoped audit logs"},
	} {
		if got := tt.request.Query(); got != tt.query {
			t.Errorf("%+v asks\n%s, want\n%s", tt.request, got, tt.query)
		}
		if got := tt.request.What(); got != tt.what {
			t.Errorf("%+v is for %s, want %s", tt.request, got, tt.what)
		}
	}
}

// TestFailure: a failure says what its error says, and is that error too.
func TestFailure(t *testing.T) {
	cause := fmt.Errorf("reading: %w", io.EOF)
	err := fmt.Errorf("x: %w", &Failure{Kind: Refused, Err: cause})
	var f *Failure
	if !errors.As(err, &f) || f.Kind != Refused || !errors.Is(err, io.EOF) || err.Error() != "x: reading: EOF" {
		t.Errorf("error %v, failure %+v", err, f)
	}
	if (&Failure{Err: cause}).Kind != Other {
		t.Error("a failure of no kind is not one of the others")
	}
}
