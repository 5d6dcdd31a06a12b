package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"

	"example.com/auditlog/internal/audit"
)

// version is the version of the states that this release writes, and the newest that it reads. An
// older release keeps keys that it does not know as they are: a key that would be wrong when stale
// raises the version. So does one in "covered" or "recent", where nothing unknown is kept.
const version = 1

// ErrNewer means a state that only a later release can read.
var ErrNewer = errors.New("newer than this release")

// checkVersion refuses a later release's state, whatever else is in it. The first states have no
// version. It leaves it to the reading that follows to report data that is no JSON object.
func checkVersion(data []byte) error {
	var stored struct {
		Version json.RawMessage `json:"version"`
	}
	if json.Unmarshal(data, &stored) != nil || stored.Version == nil {
		return nil
	}
	switch v, err := audit.WholeNumber(stored.Version); {
	case err != nil || v < 1:
		return fmt.Errorf(`"version" is %s, which is no positive whole number`, audit.Shorten(string(stored.Version)))
	case v > version:
		return fmt.Errorf("%w: it has version %d, and this release reads version %d at most", ErrNewer, v, version)
	}
	return nil
}

// unmarshal reads a JSON object into the struct that v points to. It also returns the members that
// have no field there, for marshal.
func unmarshal(data []byte, v any) (unknown string, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return "", err
	}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(v).Elem()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			maps.DeleteFunc(members, func(key string, _ json.RawMessage) bool { return strings.EqualFold(key, name) })
		}
	}
	if len(members) > 0 {
		text, err := json.Marshal(members)
		if err != nil {
			return "", err
		}
		unknown = "," + string(text[1:len(text)-1])
	}
	return unknown, json.Unmarshal(data, v)
}

// marshal returns the JSON object of a struct with at least one member, and the unknown members.
func marshal(v any, unknown string) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(data[:len(data)-1], unknown+"}"...), nil
}

// backlog is a Window without its methods.
type backlog Window

// MarshalJSON implements json.Marshaler.
func (w Window) MarshalJSON() ([]byte, error) { return marshal(backlog(w), w.Unknown) }

// UnmarshalJSON implements json.Unmarshaler.
func (w *Window) UnmarshalJSON(data []byte) (err error) {
	w.Unknown, err = unmarshal(data, (*backlog)(w))
	return err
}
