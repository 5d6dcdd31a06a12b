package store

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"cloud.google.com/go/storage"
	"google.golang.org/api/googleapi"
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

// Hint adds advice to a storage error.
func Hint(err error) error {
	switch status := StatusOf(err); {
	case BucketMissing(err):
		return fmt.Errorf("%w (no such bucket: check GCS_BUCKET and STATE_BUCKET)", err)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return fmt.Errorf("%w (the function's service account lacks a role on the bucket, or a retention policy or hold forbids it)", err)
	}
	return err
}

// ReadHint adds advice for whoever reads the bucket.
func ReadHint(err error, bucket string) error {
	switch StatusOf(err) {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("whoever reads needs the role Storage Object Viewer on bucket %q: %w", bucket, err)
	}
	return Hint(err)
}
