package audit

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Filter limits which records the API returns: the filter part of a request's query, encoded, with
// sorted names and values; "" for none.
type Filter string

// filterParameters are the API's filters, each with its setting.
var filterParameters = []struct{ setting, parameter string }{
	{"EVENT_TYPES", "event_types[]"},
	{"PROJECT_IDS", "project_ids[]"},
	{"ACTOR_EMAILS", "actor_emails[]"},
	{"ACTOR_IDS", "actor_ids[]"},
	{"RESOURCE_IDS", "resource_ids[]"},
}

// NewFilter makes a filter from the settings' values, by the settings' names. Values must be
// sorted, so that equal filters have equal text.
func NewFilter(values map[string][]string) Filter {
	v := url.Values{}
	for _, p := range filterParameters {
		if list := values[p.setting]; len(list) > 0 {
			v[p.parameter] = list
		}
	}
	return Filter(v.Encode())
}

// Check refuses text that is not a filter: a state may hold anything.
func (f Filter) Check() error {
	v, err := url.ParseQuery(string(f))
	for name := range v {
		if !slices.ContainsFunc(filterParameters, func(p struct{ setting, parameter string }) bool { return p.parameter == name }) {
			err = fmt.Errorf("%q is none of its parameters", name)
		}
	}
	if err != nil {
		return fmt.Errorf(`"filter" is %q: %w`, Shorten(string(f)), err)
	}
	return nil
}

// String returns the filter as settings, for people.
func (f Filter) String() string {
	v, _ := url.ParseQuery(string(f))
	var list []string
	for _, p := range filterParameters {
		if values := v[p.parameter]; len(values) > 0 {
			list = append(list, p.setting+"="+strings.Join(values, ","))
		}
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, " ")
}

// Excludes reports whether no record can pass both filters. Of a record's fields, only the type is
// known to have one value.
func (f Filter) Excludes(g Filter) bool {
	if f == g || f == "" || g == "" {
		return false
	}
	const types = "event_types[]"
	a, _ := url.ParseQuery(string(f))
	b, _ := url.ParseQuery(string(g))
	return len(a[types]) > 0 && len(b[types]) > 0 &&
		!slices.ContainsFunc(a[types], func(t string) bool { return slices.Contains(b[types], t) })
}

// Includes reports whether each record that passes g passes f, too.
func (f Filter) Includes(g Filter) bool {
	wide, err := url.ParseQuery(string(f))
	if err != nil {
		return false
	}
	narrow, _ := url.ParseQuery(string(g))
	for name, values := range wide {
		outside := func(v string) bool { return !slices.Contains(values, v) }
		if len(narrow[name]) == 0 || slices.ContainsFunc(narrow[name], outside) {
			return false
		}
	}
	return true
}
