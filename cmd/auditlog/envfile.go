package main

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"

	"example.com/auditlog/internal/config"
)

// fileSettings are those of the file of --env-file; nil without one.
var fileSettings map[string]string

// useEnvFile puts a file's settings into the environment. What is set there already wins.
func useEnvFile(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if fileSettings, err = parseSettings(string(text)); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	for name, value := range fileSettings {
		if os.Getenv(name) == "" {
			os.Setenv(name, value)
		}
	}
	return nil
}

var (
	noSetting = regexp.MustCompile(`^\s*(#|$)`)
	setting   = regexp.MustCompile(`^\s*([A-Z][A-Z0-9_]*)=\s*("[^"]*"|'[^']*'|[^"'#]*?)\s*$`)
)

// parseSettings reads lines of NAME=VALUE, and what follows from them. No error shows a value: it may
// be a secret.
func parseSettings(text string) (map[string]string, error) {
	settings := map[string]string{}
	for i, line := range strings.Split(text, "\n") {
		if noSetting.MatchString(line) {
			continue
		}
		m := setting.FindStringSubmatch(line)
		if m == nil {
			return nil, fmt.Errorf("line %d is not NAME=VALUE; a value with # or quotes needs quotes around it, and a comment a line of its own", i+1)
		}
		name, value := m[1], m[2]
		if _, twice := settings[name]; twice {
			return nil, fmt.Errorf("line %d sets %s again", i+1, name)
		}
		if err := checkName(name); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if strings.HasPrefix(value, `"`) || strings.HasPrefix(value, "'") {
			value = value[1 : len(value)-1]
		}
		settings[name] = value
	}
	return settings, follow(settings, map[string]string{
		"GCS_BUCKET":       settings["DEPLOY_BUCKET"],
		"INTERVAL_MINUTES": intervals[settings["DEPLOY_SCHEDULE"]],
	})
}

func checkName(name string) error {
	if strings.HasPrefix(name, "OPENAI_ADMIN_KEY") {
		return errors.New("the Admin key does not belong in this file: set " + name + " in the environment")
	}
	known := slices.ContainsFunc(config.Settings(), func(s config.Setting) bool { return s.Name == name }) ||
		slices.ContainsFunc(deployment, func(d deploymentSetting) bool { return d.name == name })
	if !known {
		return errors.New(name + ` is no setting: "auditlog help settings" lists them`)
	}
	return nil
}

// follow adds the collector's settings that follow from a deployment's.
func follow(settings, following map[string]string) error {
	for name, value := range following {
		is, set := settings[name]
		switch {
		case value == "":
		case set && is != value:
			return fmt.Errorf("%s is %q, but %q follows from the settings of the deployment: leave it out", name, is, value)
		default:
			settings[name] = value
		}
	}
	return nil
}
