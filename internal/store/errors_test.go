package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
)

func answered(status int, message string) error {
	return fmt.Errorf("around: %w", &googleapi.Error{Code: status, Message: message})
}

const noBucket = "The specified bucket does not exist."

func TestErrors(t *testing.T) {
	const settings, role = " (no such bucket: check GCS_BUCKET and STATE_BUCKET)", " (the function's service account lacks a role on the bucket, or a retention policy or hold forbids it)"
	const viewer = `whoever reads needs the role Storage Object Viewer on bucket "logs": `
	for name, c := range map[string]struct {
		err             error
		status          int
		missing, absent bool
		hint, readHint  string // what is added after, and before
	}{
		"none of it":          {errors.New("x"), 0, false, false, "", ""},
		"deadline":            {context.DeadlineExceeded, 0, false, false, "", ""},
		"unauthorized":        {answered(401, "who"), 401, false, false, role, viewer},
		"forbidden":           {answered(403, "no"), 403, false, false, role, viewer},
		"precondition":        {answered(412, "no"), 412, false, false, "", ""},
		"busy":                {answered(503, "later"), 503, false, false, "", ""},
		"no object":           {fmt.Errorf("%w: %w", storage.ErrObjectNotExist, answered(404, "No such object: logs/x")), 404, false, true, "", ""},
		"no object, no text":  {storage.ErrObjectNotExist, 0, false, true, "", ""},
		"no bucket":           {fmt.Errorf("%w: %w", storage.ErrBucketNotExist, answered(404, noBucket)), 404, true, false, settings, settings},
		"no bucket, no text":  {storage.ErrBucketNotExist, 0, true, false, settings, settings},
		"no bucket, object's": {fmt.Errorf("%w: %w", storage.ErrObjectNotExist, answered(404, noBucket)), 404, true, false, settings, settings},
		"no bucket, body's":   {fmt.Errorf("around: %w", &googleapi.Error{Code: 404, Body: `{"error":{"message":"` + noBucket + `"}}`}), 404, true, false, settings, settings},
		"forbidden, as if no": {answered(403, noBucket), 403, false, false, role, viewer},
		"404 of a proxy":      {answered(404, "nginx"), 404, false, false, "", ""},
	} {
		if got := StatusOf(c.err); got != c.status {
			t.Errorf("%s: status %d, want %d", name, got, c.status)
		}
		if got := BucketMissing(c.err); got != c.missing {
			t.Errorf("%s: bucket missing: %v", name, got)
		}
		if got := absent(c.err); got != c.absent {
			t.Errorf("%s: absent: %v", name, got)
		}
		if got := Hint(c.err); got.Error() != c.err.Error()+c.hint || !errors.Is(got, c.err) {
			t.Errorf("%s: hint %q", name, got)
		}
		want := c.readHint + c.err.Error()
		if strings.HasPrefix(c.readHint, " ") {
			want = c.err.Error() + c.readHint
		}
		if got := ReadHint(c.err, "logs"); got.Error() != want || !errors.Is(got, c.err) {
			t.Errorf("%s: read hint %q, want %q", name, got, want)
		}
	}
	for name, got := range map[string]bool{
		"status":  StatusOf(nil) == 0,
		"missing": !BucketMissing(nil),
		"absent":  !absent(nil),
		"hint":    Hint(nil) == nil,
		"reading": ReadHint(nil, "logs") == nil,
	} {
		if !got {
			t.Errorf("%s of no error", name)
		}
	}
}

// TestErrorsOfTheClient: each operation's error tells a missing bucket from a
// missing object, and a refusal from both.
func TestErrorsOfTheClient(t *testing.T) {
	inBubble(t, "logs", func(t *testing.T, x *fixture) {
		client, err := NewClient(t.Context(), x.world.StorageOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		operations := map[string]func(*storage.BucketHandle) error{
			"read": func(b *storage.BucketHandle) error { _, err := b.Object("x").NewReader(t.Context()); return err },
			"look": func(b *storage.BucketHandle) error { _, err := b.Object("x").Attrs(t.Context()); return err },
			"delete": func(b *storage.BucketHandle) error {
				return b.Object("x").Retryer(storage.WithPolicy(storage.RetryAlways)).Delete(t.Context())
			},
			"move": func(b *storage.BucketHandle) error {
				_, err := b.Object("x").Move(t.Context(), storage.MoveObjectDestination{Object: "y"})
				return err
			},
			"list": func(b *storage.BucketHandle) error { _, err := b.Objects(t.Context(), nil).Next(); return err },
			"put": func(b *storage.BucketHandle) error {
				_, err := x.Put(t.Context(), b.Object("x").If(storage.Conditions{DoesNotExist: true}), "text/plain", []byte("x"))
				return err
			},
			"copy": func(b *storage.BucketHandle) error {
				_, err := x.Feed.Object("y").CopierFrom(b.Object("x")).Run(t.Context())
				return err
			},
		}
		for name, do := range operations {
			if err := do(client.Bucket("nowhere")); !BucketMissing(err) || absent(err) {
				t.Errorf("%s: no bucket: %v", name, err)
			}
			if name != "list" && name != "put" {
				if err := do(client.Bucket("logs")); !absent(err) || BucketMissing(err) {
					t.Errorf("%s: no object: %v", name, err)
				}
			}
			x.server.Deny(func(_, _, _, _ string) bool { return true })
			err := do(client.Bucket("logs"))
			forbidden := StatusOf(err) == 403
			if name == "delete" || name == "move" { // looked for before it is denied
				forbidden = absent(err)
			}
			if !forbidden || BucketMissing(err) {
				t.Errorf("%s: denied: %v", name, err)
			}
			x.server.Deny(nil)
		}
	})
}
