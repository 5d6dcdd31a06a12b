package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"example.com/auditlog/internal/audit"
)

// TestKinds: what each answer means for what is read next, and that the failure
// is the answer's error too.
func TestKinds(t *testing.T) {
	const cursor = "audit_log-x"
	for _, tt := range []struct {
		name   string
		after  string
		status int
		body   string
		kind   audit.Kind
	}{
		{"400", "", 400, apiError("Bad limit", "limit"), audit.BadRequest},
		{"400 with a cursor that is not at fault", cursor, 400, apiError("Bad limit", "limit"), audit.BadRequest},
		{"403", "", 403, apiError("No", ""), audit.Refused},
		{"403 about the cursor", cursor, 403, apiError("Cursor "+cursor, "after"), audit.Refused},
		{"a proxy's 400", "", 400, "no", audit.Other},
		{"a proxy's 403", "", 403, `{"message":"no"}`, audit.Other},
		{"401", "", 401, apiError("Missing scopes", ""), audit.Other},
		{"404", "", 404, apiError("Not found", ""), audit.Other},
		{"404 with a cursor that is not at fault", cursor, 404, apiError("Not found", ""), audit.Other},
		{"422", "", 422, apiError("No", ""), audit.Other},
		{"redirect", "", 302, "", audit.Other},
		{"429", "", 429, apiError("Rate limit", ""), audit.Other},
		{"500 about the cursor", cursor, 500, apiError("Cursor", "after"), audit.Unserved},

		{"cursor, by the parameter", cursor, 400, apiError("No", "after"), audit.CursorRefused},
		{"cursor, by its text", cursor, 404, apiError("No audit log "+cursor, ""), audit.CursorRefused},
		{"cursor, by its name", cursor, 400, apiError("The pagination Cursor has expired", ""), audit.CursorRefused},
		{"a proxy's word on the cursor", cursor, 404, "Not found: /v1/x?after=" + cursor, audit.Other},
		{"cursor of a request without one", "", 400, apiError("Cursor", "after"), audit.BadRequest},

		{"no list", "", 200, "{}", audit.Unserved},
		{"cut", "", 200, goodPage[:50], audit.Unserved},
		{"no answer", "", 0, "", audit.Other},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := inMemory(func(*http.Request) (*http.Response, error) {
				if tt.status == 0 {
					return nil, io.ErrUnexpectedEOF
				}
				return response(tt.status, tt.body, "retry-after-ms", "0"), nil
			})
			q := testRequest
			q.After = tt.after
			p, err := c.Page(t.Context(), q, new(bytes.Buffer), func(error, time.Duration) {})
			var f *audit.Failure
			if !errors.As(err, &f) || f.Kind != tt.kind || len(p.Records) > 0 {
				t.Fatalf("page %+v, error %#v, want one of kind %d", p, err, tt.kind)
			}
			var e *Error
			var u *Unreachable
			if got := errors.As(err, &e); got != (tt.status > 200) || got && e.Status != tt.status {
				t.Errorf("the API's answer is %+v", e)
			}
			if got := errors.As(err, &u); got != (tt.status == 0) || got && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("the network's error is %+v", u)
			}
		})
	}
}

// TestCursorRefused: the API itself must have found fault with the cursor, and
// there must have been one.
func TestCursorRefused(t *testing.T) {
	q := audit.Request{After: "audit_log-x"}
	for _, tt := range []struct {
		err  error
		q    audit.Request
		want bool
	}{
		{&Error{API: true, Status: 400, Param: "after"}, q, true},
		{&Error{API: true, Status: 404, Param: "after"}, q, true},
		{&Error{API: true, Status: 400, Message: "No audit log audit_log-x"}, q, true},
		{&Error{API: true, Status: 404, Message: "No audit log audit_log-x"}, q, true},
		{&Error{API: true, Status: 400, Message: "The pagination Cursor has expired"}, q, true},
		{&Error{API: true, Status: 404, Message: "CURSOR"}, q, true},
		{fmt.Errorf("x: %w", &Error{API: true, Status: 404, Param: "after"}), q, true},
		{&Error{API: true, Status: 400, Param: "limit"}, q, false},
		{&Error{API: true, Status: 400, Param: "afterwards", Message: "No audit log audit_log-y"}, q, false},
		{&Error{API: true, Status: 400}, q, false},
		{&Error{API: true, Status: 404}, q, false},
		{&Error{API: true, Status: 500, Param: "after"}, q, false},
		{&Error{API: true, Status: 403, Param: "after", Message: "cursor audit_log-x"}, q, false},
		{&Error{API: true, Status: 410, Param: "after", Message: "cursor audit_log-x"}, q, false},
		{&Error{API: true, Status: 400, Param: "after", Message: "cursor"}, audit.Request{}, false},
		{&Error{API: true, Status: 404, Param: "after", Message: "cursor"}, audit.Request{}, false},
		{&Error{Status: 404, Message: "Not found: /v1/x?after=audit_log-x"}, q, false}, // a proxy's
		{&Error{Status: 400, Param: "after"}, q, false},
		{audit.ErrCutBody, q, false},
	} {
		if f := failure(tt.err, tt.q); (f.Kind == audit.CursorRefused) != tt.want || f.Err != tt.err {
			t.Errorf("%v with cursor %q: kind %d", tt.err, tt.q.After, f.Kind)
		}
	}
	if f := failure(fmt.Errorf("x: %w", errPageTooLarge), q); f.Kind != audit.PageTooLarge {
		t.Errorf("page too large: kind %d", f.Kind)
	}
}
