package config

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"example.com/auditlog/internal/audit"
)

// Warning is something odd in valid settings: runs continue, but somebody should look.
type Warning struct{ Text, Remedy string }

// Warnings lists what is odd about the settings.
func (c Config) Warnings() []Warning {
	var list []Warning
	if c.Layout().StateInFeed() {
		list = append(list, Warning{
			"STATE_KEY lies under GCS_PREFIX, where the feed ingests it and may delete it",
			fmt.Sprintf("set STATE_KEY to a name outside, for example state/%s, and move the object there if there is one", c.StateKey),
		})
	}
	if tidy := path.Clean(c.Prefix); tidy != c.Prefix {
		list = append(list, Warning{
			fmt.Sprintf("GCS_PREFIX %q has an empty part", c.Prefix),
			fmt.Sprintf("set GCS_PREFIX to %q, and let the feed read gs://%s/%s/", tidy, c.Bucket, tidy),
		})
	}
	if unknown := unknownTypes(c.EventTypes); len(unknown) > 0 {
		question := "which is not a known type: is it misspelt?"
		if len(unknown) > 1 {
			question = "which are not known types: are they misspelt?"
		}
		list = append(list, Warning{
			fmt.Sprintf("EVENT_TYPES names %s, %s", audit.Shorten(strings.Join(unknown, ", ")), question),
			"correct EVENT_TYPES; leave a type that OpenAI has added of late as it is",
		})
	}
	return list
}

// unknownTypes quotes the entries of list that are not known event types, each with the type that
// may be meant.
func unknownTypes(list []string) (unknown []string) {
	known := audit.Types()
	for _, t := range list {
		if slices.Contains(known, t) {
			continue
		}
		quoted := strconv.Quote(t)
		if nearest := audit.Nearest(t, known); nearest != "" {
			quoted += fmt.Sprintf(" (%s?)", nearest)
		}
		unknown = append(unknown, quoted)
	}
	return unknown
}
