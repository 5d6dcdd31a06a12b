package store

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"

	"example.com/auditlog/internal/audit"
)

// StatusOf returns the HTTP status of a storage error, 0 for none.
func StatusOf(err error) int {
	var e *googleapi.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// BucketMissing reports whether err means that there is no such bucket. A missing object's error
// has the same status.
func BucketMissing(err error) bool {
	var e *googleapi.Error
	return errors.Is(err, storage.ErrBucketNotExist) ||
		errors.As(err, &e) && e.Code == http.StatusNotFound && strings.Contains(e.Message+e.Body, "bucket does not exist")
}

// absent reports whether err means that there is no such object.
func absent(err error) bool {
	return errors.Is(err, storage.ErrObjectNotExist) && !BucketMissing(err)
}

// Cause is why a storage request fails, where an operator can do something about it.
type Cause int

const (
	Unknown Cause = iota
	NoBucket
	NoCredentials
	NoRole
	Retained         // by a retention policy or a hold
	OutsidePerimeter // of VPC Service Controls
	KeyUnusable      // of Cloud KMS
)

// Remedy is what to do about it, "" for Unknown.
func (c Cause) Remedy() string {
	return [...]string{
		NoBucket:         "there is no such bucket: check GCS_BUCKET and STATE_BUCKET",
		NoCredentials:    `mend the credentials: "gcloud auth application-default login", or a service account for the function`,
		NoRole:           "the function's service account lacks a role on the bucket",
		Retained:         "a retention policy or a hold forbids it: set STATE_BUCKET to a bucket without one and copy the state object there, or remove it",
		OutsidePerimeter: "VPC Service Controls forbid it: add an ingress rule for the function's service account and storage.googleapis.com to the perimeter, or run the function inside it",
		KeyUnusable:      "the bucket's Cloud KMS key cannot be used: grant Cloud KMS CryptoKey Encrypter/Decrypter on it to the project's Cloud Storage service agent, and see that its version is enabled",
		Unknown:          "",
	}[c]
}

// CauseOf returns the cause of a storage error. A 403 has many: what Cloud Storage says tells which.
func CauseOf(err error) Cause {
	var e *googleapi.Error
	switch {
	case err == nil:
		return Unknown
	case BucketMissing(err):
		return NoBucket
	case !errors.As(err, &e):
		if noCredentials(err.Error()) {
			return NoCredentials
		}
		return Unknown
	case e.Code == http.StatusUnauthorized:
		return NoCredentials
	}
	said := strings.ToLower(e.Error() + e.Body)
	says := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(said, p) {
				return true
			}
		}
		return false
	}
	switch {
	case says("cloud kms", "cloudkms"): // 400, too
		return KeyUnusable
	case e.Code != http.StatusForbidden:
		return Unknown
	case says("vpcservicecontrols", "security_policy_violated", "prohibited by organization's policy"):
		return OutsidePerimeter
	case says("retentionpolicynotmet", "objectunderactivehold", "retention policy", "under active"):
		return Retained
	}
	return NoRole
}

// noCredentials reports whether a text is one of Google's clients that find no credentials, or get no
// token with them.
func noCredentials(text string) bool {
	return strings.Contains(text, "could not find default credentials") ||
		strings.Contains(text, "token") && (strings.Contains(text, "auth") || strings.Contains(text, "metadata"))
}

// Said is Cloud Storage's own message, without what the client adds; any other error's text as it is.
func Said(err error) string {
	var e *googleapi.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	var body struct{ Error struct{ Message string } }
	_ = json.Unmarshal([]byte(e.Body), &body) // after a read, the message is in there
	return fmt.Sprintf("%d %s", e.Code, audit.Shorten(cmp.Or(e.Message, body.Error.Message, e.Body, http.StatusText(e.Code))))
}

// hinted is a storage error in few words, with advice.
type hinted struct {
	error
	text string
}

func (e *hinted) Error() string { return e.text }
func (e *hinted) Unwrap() error { return e.error }

// Hint shortens a storage error to what Cloud Storage says, and adds advice, unless that is done.
func Hint(err error) error {
	if err == nil || errors.As(err, new(*hinted)) {
		return err
	}
	text := Plain(err)
	if remedy := CauseOf(err).Remedy(); remedy != "" {
		text += " (" + remedy + ")"
	}
	return &hinted{err, text}
}

// Plain is the error's text without the answer's body, which the client prints.
func Plain(err error) string {
	text := err.Error()
	var e *googleapi.Error
	if errors.As(err, &e) {
		text = strings.Replace(text, e.Error(), Said(e), 1)
	}
	if BucketMissing(err) { // the client takes it for a missing object
		text = strings.Replace(text, storage.ErrObjectNotExist.Error()+": ", "", 1)
	}
	return text
}

// ReadHint is Hint for whoever reads the bucket.
func ReadHint(err error, bucket string) error {
	if CauseOf(err) != NoRole {
		return Hint(err)
	}
	return &hinted{err, fmt.Sprintf("whoever reads needs the role Storage Object Viewer on bucket %q: %s", bucket, Plain(err))}
}
