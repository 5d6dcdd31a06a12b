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

// refused is the client's error for such an answer: with the message in it, or after a
// read with the body alone.
func refused(status int, reason, message string) []error {
	return []error{
		fmt.Errorf("around: %w", &googleapi.Error{Code: status, Message: message, Errors: []googleapi.ErrorItem{{Reason: reason, Message: message}}}),
		fmt.Errorf("around: %w", &googleapi.Error{Code: status, Body: fmt.Sprintf(`{"error": {"code": %d, "message": %q, "errors": [{"reason": %[3]q}]}}`, status, message, reason)}),
	}
}

// TestCauses: each cause is told from the others by what Cloud Storage says, and no
// error shows the body of an answer.
func TestCauses(t *testing.T) {
	for _, c := range []struct {
		status          int
		reason, message string
		want            Cause
	}{
		{401, "required", "Invalid Credentials", NoCredentials},
		{403, "forbidden", "a@b.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud Storage object.", NoRole},
		{403, "forbidden", "", NoRole},
		{403, "forbidden", noBucket, NoRole},
		{403, "retentionPolicyNotMet", "Object 'logs/x' is subject to bucket's retention policy and cannot be deleted", Retained},
		{403, "objectUnderActiveHold", "Object 'logs/x' is under active Temporary hold and cannot be deleted", Retained},
		{403, "forbidden", "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: abc", OutsidePerimeter},
		{403, "forbidden", "Permission denied on Cloud KMS key. Please ensure that your Cloud Storage service account has been authorized to use this key.", KeyUnusable},
		{400, "cloudKmsDisabledKey", "The key is disabled", KeyUnusable},
		{400, "invalid", "No", Unknown},
		{404, "notFound", noBucket, NoBucket},
		{404, "notFound", "No such object: logs/x", Unknown},
		{412, "conditionNotMet", "At least one condition did not hold", Unknown},
		{503, "backendError", "later", Unknown},
	} {
		for _, err := range refused(c.status, c.reason, c.message) {
			if got := CauseOf(err); got != c.want {
				t.Errorf("%v: cause %d, want %d", err, got, c.want)
			}
			want := strings.TrimSpace(fmt.Sprintf("around: %d %s", c.status, c.message))
			if c.message == "" {
				want = "around: 403 "
			}
			if remedy := c.want.Remedy(); remedy != "" {
				if !strings.HasSuffix(Hint(err).Error(), " ("+remedy+")") {
					t.Errorf("hint %q", Hint(err))
				}
			}
			if got := Hint(err).Error(); !strings.HasPrefix(got, want) || c.message != "" && strings.Contains(got, "{") || !errors.Is(Hint(err), err) {
				t.Errorf("hint %q, want %q", got, want)
			}
		}
	}
	for text, want := range map[string]Cause{
		"x": Unknown,
		"dialing: credentials: could not find default credentials. See https://cloud.google.com/docs for more information": NoCredentials,
		"auth: cannot fetch token: 400": NoCredentials,
	} {
		if got := CauseOf(errors.New(text)); got != want {
			t.Errorf("%s: cause %d, want %d", text, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err             error
		status          int
		missing, absent bool
		text            string
		role            bool // is missing
	}{
		"none of it":          {errors.New("x"), 0, false, false, "x", false},
		"deadline":            {context.DeadlineExceeded, 0, false, false, "context deadline exceeded", false},
		"forbidden":           {answered(403, "no"), 403, false, false, "around: 403 no", true},
		"precondition":        {answered(412, "no"), 412, false, false, "around: 412 no", false},
		"no object":           {fmt.Errorf("%w: %w", storage.ErrObjectNotExist, answered(404, "No such object: logs/x")), 404, false, true, "storage: object doesn't exist: around: 404 No such object: logs/x", false},
		"no object, no text":  {storage.ErrObjectNotExist, 0, false, true, "storage: object doesn't exist", false},
		"no bucket":           {fmt.Errorf("%w: %w", storage.ErrBucketNotExist, answered(404, noBucket)), 404, true, false, "storage: bucket doesn't exist: around: 404 " + noBucket, false},
		"no bucket, no text":  {storage.ErrBucketNotExist, 0, true, false, "storage: bucket doesn't exist", false},
		"no bucket, object's": {fmt.Errorf("%w: %w", storage.ErrObjectNotExist, answered(404, noBucket)), 404, true, false, "around: 404 " + noBucket, false},
		"no bucket, body's":   {fmt.Errorf("around: %w", &googleapi.Error{Code: 404, Body: `{"error":{"message":"` + noBucket + `"}}`}), 404, true, false, "around: 404 " + noBucket, false},
		"404 of a proxy":      {fmt.Errorf("around: %w", &googleapi.Error{Code: 404, Body: "<html>\n<title>nginx</title>"}), 404, false, false, "around: 404 <html> <title>nginx</title>", false},
		"busy":                {fmt.Errorf("around: %w", &googleapi.Error{Code: 503}), 503, false, false, "around: 503 Service Unavailable", false},
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
		want := c.text
		if remedy := CauseOf(c.err).Remedy(); remedy != "" {
			want += " (" + remedy + ")"
		}
		if got := Hint(c.err); got.Error() != want || !errors.Is(got, c.err) || Hint(fmt.Errorf("%w", got)).Error() != want {
			t.Errorf("%s: hint %q, want %q", name, got, want)
		}
		if c.role {
			want = `whoever reads needs the role Storage Object Viewer on bucket "logs": ` + c.text
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
