package auditlog

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// filter limits what records the API brings: the part of a request's query that
// does so, encoded, its names and values sorted; "" for none.
type filter string

// longestFilter is in bytes. Servers and proxies take a request's line of 8 KiB.
const longestFilter = 6 << 10

type filterSetting struct {
	setting, parameter string // the API's
	values             func(*Config) *[]string
}

var filterSettings = []filterSetting{
	{"EVENT_TYPES", "event_types[]", func(c *Config) *[]string { return &c.EventTypes }},
	{"PROJECT_IDS", "project_ids[]", func(c *Config) *[]string { return &c.ProjectIDs }},
	{"ACTOR_EMAILS", "actor_emails[]", func(c *Config) *[]string { return &c.ActorEmails }},
	{"ACTOR_IDS", "actor_ids[]", func(c *Config) *[]string { return &c.ActorIDs }},
	{"RESOURCE_IDS", "resource_ids[]", func(c *Config) *[]string { return &c.ResourceIDs }},
}

// loadFilter makes the filter of the settings, and their lists tidy.
func (c *Config) loadFilter(fault func(name, format string, args ...any)) {
	v := url.Values{}
	var names []string
	for _, s := range filterSettings {
		list := s.values(c)
		for i, value := range *list {
			if (*list)[i] = strings.TrimSpace(value); !nameable((*list)[i]) {
				fault(s.setting, "%q holds characters that no name has", value)
			}
		}
		slices.Sort(*list)
		*list = slices.DeleteFunc(slices.Compact(*list), func(s string) bool { return s == "" })
		if len(*list) > 0 {
			v[s.parameter] = *list
			names = append(names, s.setting)
		}
	}
	c.filter = filter(v.Encode())
	if n := len(c.filter); n > longestFilter {
		fault(strings.Join(names, ", "), "too long for a request: %d bytes of its %d", n, longestFilter)
	}
}

// check refuses a filter that could be more than one.
func (f filter) check() error {
	v, err := url.ParseQuery(string(f))
	for name := range v {
		if !slices.ContainsFunc(filterSettings, func(s filterSetting) bool { return s.parameter == name }) {
			err = fmt.Errorf("%q is none of its parameters", name)
		}
	}
	if err != nil {
		return fmt.Errorf(`"filter" is %q: %w`, shorten(string(f)), err)
	}
	return nil
}

// String is the filter as settings, for people.
func (f filter) String() string {
	v, _ := url.ParseQuery(string(f))
	var list []string
	for _, s := range filterSettings {
		if values := v[s.parameter]; len(values) > 0 {
			list = append(list, s.setting+"="+strings.Join(values, ","))
		}
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, " ")
}

// excludes reports whether no record passes both filters. Of a record's fields
// only the type is known to have one value.
func (f filter) excludes(g filter) bool {
	if f == g || f == "" || g == "" {
		return false
	}
	const types = "event_types[]"
	a, _ := url.ParseQuery(string(f))
	b, _ := url.ParseQuery(string(g))
	return len(a[types]) > 0 && len(b[types]) > 0 &&
		!slices.ContainsFunc(a[types], func(t string) bool { return slices.Contains(b[types], t) })
}
