package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
	"github.com/spf13/cobra"

	"example.com/auditlog"
	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/checkup"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/store"
)

func checkCommand() *cobra.Command {
	var asJSON, strict, settingsOnly bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Check settings, key, API, clock, bucket, roles and state",
		Long: `check looks whether everything that runs need is there: the settings, the API and its key, the clock,
the bucket and its roles, the state, the feed's folder. It takes the settings from the environment, as
run and serve do ("auditlog help settings").

It changes neither the state nor anything that the feed sees. It writes one small object beside the
staged ones, and removes it again.

Each check prints one line as soon as it is done: ok, warning (runs go on, but somebody should look),
failure (runs fail, or would), skipped (not checked, for the given reason; this is no fault) or
interrupted. A warning or failure has a second line with the remedy. The check tests the roles of the
account that runs it: the function's own, if the function runs it; yours, here.

With --settings-only it checks the settings alone, and no key: those of the file if --env-file names
one, whatever the environment has.

With --json it prints one JSON object at the end: "checks", each with "check", "result", "detail" and,
for warnings and failures, "remedy"; and how many have each result.`,
		Example: `  GCS_BUCKET=my-bucket OPENAI_ADMIN_KEY=sk-admin-... auditlog check
  auditlog check --json | jq -r '.checks[] | select(.result == "failure") | .check'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			out := cmd.OutOrStdout()
			show := style{columns(out), colours()}.print
			if asJSON {
				show = printFindingsJSON
			}
			count, err := show(out, check(ctx, settingsOnly))
			bad := count[checkup.ResultFailure] + count[checkup.ResultInterrupted]
			if strict {
				bad += count[checkup.ResultWarning]
			}
			if err == nil && bad > 0 {
				return errLogged // above
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c.Flags().BoolVar(&strict, "strict", false, "let warnings end in exit status 1, too")
	c.Flags().BoolVar(&settingsOnly, "settings-only", false, "check the settings, and neither the key nor the cloud")
	return c
}

// check checks the set-up that the environment describes.
func check(ctx context.Context, settingsOnly bool) iter.Seq[checkup.Finding] {
	if settingsOnly {
		return slices.Values(checkSettings())
	}
	cfg, err := config.Load(env.ToMap(os.Environ()))
	if err != nil {
		return slices.Values([]checkup.Finding{badSettings(err), {Check: "rest", Result: checkup.ResultSkipped, Detail: "needs the settings"}})
	}
	collector, err := auditlog.New(ctx, cfg, auditlog.Options{})
	if err != nil {
		return slices.Values([]checkup.Finding{
			goodSettings,
			{Check: "credentials", Result: checkup.ResultFailure, Detail: err.Error(), Remedy: store.NoCredentials.Remedy()},
			{Check: "rest", Result: checkup.ResultSkipped, Detail: "needs credentials"},
		})
	}
	return collector.Check(ctx)
}

var goodSettings = checkup.Finding{Check: "settings", Result: checkup.ResultOK, Detail: "each is there and plausible"}

func badSettings(err error) checkup.Finding {
	remedy := `set each that is named; "auditlog help settings" has what they mean`
	if fileSettings != nil && strings.Contains(err.Error(), "OPENAI_ADMIN_KEY: required") {
		remedy += `. The key is not in the file: OPENAI_ADMIN_KEY=$(gcloud secrets versions access latest --secret=openai-auditlog-admin-key) auditlog ...`
	}
	return checkup.Finding{Check: "settings", Result: checkup.ResultFailure, Detail: err.Error(), Remedy: remedy}
}

// checkSettings checks the settings alone: those of a deployment, or the collector's.
func checkSettings() []checkup.Finding {
	_, cfg, err := effectiveSettings()
	if err != nil {
		return []checkup.Finding{badSettings(err)}
	}
	warnings := cfg.Warnings()
	if len(warnings) == 0 {
		return []checkup.Finding{goodSettings}
	}
	var findings []checkup.Finding
	for _, w := range warnings {
		findings = append(findings, checkup.Finding{Check: "settings", Result: checkup.ResultWarning, Detail: w.Text, Remedy: w.Remedy})
	}
	return findings
}

func printFindingsJSON(w io.Writer, findings iter.Seq[checkup.Finding]) (checkup.Tally, error) {
	checks, count := []checkup.Finding{}, checkup.Tally{}
	for f := range findings {
		checks = append(checks, f)
		count[f.Result]++
	}
	return count, printJSON(w, struct {
		Checks      []checkup.Finding `json:"checks"`
		OK          int               `json:"ok"`
		Warnings    int               `json:"warnings"`
		Failures    int               `json:"failures"`
		Skipped     int               `json:"skipped"`
		Interrupted int               `json:"interrupted"`
	}{checks, count[checkup.ResultOK], count[checkup.ResultWarning], count[checkup.ResultFailure], count[checkup.ResultSkipped], count[checkup.ResultInterrupted]})
}

// style is how findings look. Without a terminal, of width 0, there are neither symbols nor
// colours, and a line has any width.
type style struct {
	width   int
	colours bool
}

const longestCheck = len("probe_condition")

// print prints each finding as it comes, and their numbers.
func (s style) print(w io.Writer, findings iter.Seq[checkup.Finding]) (checkup.Tally, error) {
	count := checkup.Tally{}
	for f := range findings {
		count[f.Result]++
		if _, err := io.WriteString(w, s.lines(f)); err != nil {
			return count, err
		}
	}
	_, err := fmt.Fprintln(w, count)
	return count, err
}

// lines is a finding as text: its line, and the remedy below.
func (s style) lines(f checkup.Finding) string {
	margin := s.results() + 2
	text := fmt.Sprintf("%s  %-*s  ", s.head(f.Result), longestCheck, f.Check)
	text += s.wrapped(f.Detail, margin+longestCheck+2)
	if f.Remedy != "" {
		text += fmt.Sprintf("%*s-> ", margin, "") + s.wrapped(f.Remedy, margin+3)
	}
	return text
}

// wrapped breaks text that stands behind a margin.
func (s style) wrapped(text string, margin int) string {
	return audit.Wrap(strings.Repeat(" ", margin)+text, s.width, margin)[margin:] + "\n"
}

// results is the width of the column of results.
func (s style) results() int {
	if s.width == 0 {
		return len(checkup.ResultWarning)
	}
	return 1
}

// head is a line's beginning.
func (s style) head(r checkup.Result) string {
	if s.width == 0 {
		return fmt.Sprintf("%-*s", s.results(), r)
	}
	symbol, colour := "-", dim
	switch r {
	case checkup.ResultOK:
		symbol, colour = "✓", green
	case checkup.ResultWarning:
		symbol, colour = "!", yellow
	case checkup.ResultFailure:
		symbol, colour = "✗", red
	}
	return paint(s.colours, colour, symbol)
}
