package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	"example.com/auditlog/internal/config"
)

// fileSettings are the collector's settings of the file of --env-file; nil without one.
var fileSettings map[string]string

// useEnvFile puts a file's settings into the environment. What is set there already wins.
func useEnvFile(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	settings, err := parseSettings(string(text))
	if err == nil {
		fileSettings, err = collectorSettings(settings)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for name, value := range fileSettings {
		if os.Getenv(name) == "" {
			os.Setenv(name, value)
		}
	}
	return nil
}

// deploy/deploy.sh has these patterns too, so that both read a file alike.
var (
	noSetting = regexp.MustCompile(`^[[:blank:]]*(#|$)`)
	setting   = regexp.MustCompile(`^[[:blank:]]*([A-Z][A-Z0-9_]*)=[[:blank:]]*("[^"[:cntrl:]]*"|'[^'[:cntrl:]]*'|[^"'#[:cntrl:]]*)[[:blank:]]*$`)
)

// parseSettings reads lines of NAME=VALUE. No error shows a value: it may be a secret.
func parseSettings(text string) (map[string]string, error) {
	settings := map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if noSetting.MatchString(line) {
			continue
		}
		m := setting.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d is not NAME=VALUE; a value with # or quotes needs quotes around it, and a comment a line of its own", i+1)
		}
		name, value := m[1], strings.TrimRight(m[2], " \t")
		if _, twice := settings[name]; twice {
			return nil, fmt.Errorf("line %d sets %s again", i+1, name)
		}
		if quote := value[:min(1, len(value))]; quote == `"` || quote == "'" {
			value = value[1 : len(value)-1]
		}
		settings[name] = value
	}
	return settings, nil
}

// intervals has the time between two runs, in minutes, of the schedules that deploy/deploy.sh knows.
var intervals = map[string]string{"*/5 * * * *": "5", "*/15 * * * *": "15", "0 * * * *": "60", "0 */6 * * *": "360", "0 0 * * *": "1440"}

// collectorSettings returns what a deployment's settings are to the collector: its own as they are,
// and those that follow from the deployment's.
func collectorSettings(settings map[string]string) (map[string]string, error) {
	var known []string
	for _, s := range config.Settings() {
		known = append(known, s.Name)
	}
	own := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		switch {
		case strings.HasPrefix(name, "OPENAI_ADMIN_KEY"):
			return nil, fmt.Errorf("%s: the key does not belong in this file: set it in the environment", name)
		case strings.HasPrefix(name, "DEPLOY_"):
		case !slices.Contains(known, name):
			return nil, fmt.Errorf("%s is no setting: \"auditlog help settings\" lists them", name)
		default:
			own[name] = settings[name]
		}
	}
	for name, value := range map[string]string{"GCS_BUCKET": settings["DEPLOY_BUCKET"], "INTERVAL_MINUTES": intervals[settings["DEPLOY_SCHEDULE"]]} {
		if value == "" {
			continue
		}
		if is, set := own[name]; set && is != value {
			return nil, fmt.Errorf("%s is %q, but %q follows from the deployment's settings: leave it out", name, is, value)
		}
		own[name] = value
	}
	return own, nil
}

// withoutKey returns settings that need no key, for what does not ask the API.
func withoutKey(settings map[string]string) map[string]string {
	settings = maps.Clone(settings)
	settings["OPENAI_ADMIN_KEY"] = "unused"
	return settings
}
