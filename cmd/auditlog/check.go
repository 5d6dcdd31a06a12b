package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/caarlos0/env/v11"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"example.com/auditlog"
	"example.com/auditlog/internal/checkup"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/store"
)

func checkCommand() *cobra.Command {
	var asJSON, settingsOnly bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Say what lacks before a run does",
		Long: `check looks whether everything that runs need is there: the settings, the API and
its key, the clock, the bucket and its roles, the state, the feed's folder. It
takes the settings of run and serve from the environment ("auditlog help
settings"), and nothing else.

It changes neither the state nor anything that the feed sees. What it writes is
one small object beside the staged ones, which it removes again.

Each check has one line: ok, warning (runs go on, but look), failure (runs fail,
or would) or skipped (not looked at, for the reason given; no fault). Below a
warning or failure stands what to do. It judges the roles of the account that
runs it: the function's own, where the function runs it; yours, here.

With --settings-only it looks at the settings alone, and at no key: those of the
file where --env-file names one, whatever the environment has.

With --json it prints one JSON object a line and check, with "check", "result",
"detail" and, of warnings and failures, "remedy".

Exit status: 0 no failures, 1 failures, or interrupted, 2 wrong usage.`,
		Example: `  GCS_BUCKET=my-bucket OPENAI_ADMIN_KEY=sk-admin-... auditlog check
  auditlog check --json | jq -r 'select(.result == "failure") | .check'`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			defer context.AfterFunc(ctx, stop)() // so that a second signal kills
			findings := check(ctx, settingsOnly)
			out := cmd.OutOrStdout()
			var err error
			if asJSON {
				err = printJSON(out, findings)
			} else {
				err = printLines(out, findings, onTerminal(out))
			}
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return errLogged
			}
			for _, f := range findings {
				if f.Result == checkup.ResultFailure {
					return errLogged // above
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object a line and check")
	c.Flags().BoolVar(&settingsOnly, "settings-only", false, "check the settings, and neither the key nor the cloud")
	return c
}

// check checks the set-up that the environment describes.
func check(ctx context.Context, settingsOnly bool) []checkup.Finding {
	if settingsOnly {
		return checkSettings()
	}
	cfg, err := config.Load(env.ToMap(os.Environ()))
	if err != nil {
		return []checkup.Finding{badSettings(err), {Check: "rest", Result: checkup.ResultSkipped, Detail: "needs the settings"}}
	}
	collector, err := auditlog.New(ctx, cfg, auditlog.Options{})
	if err != nil {
		return []checkup.Finding{
			{Check: "settings", Result: checkup.ResultOK, Detail: "each is there and plausible"},
			{Check: "credentials", Result: checkup.ResultFailure, Detail: err.Error(), Remedy: store.NoCredentials.Remedy()},
			{Check: "rest", Result: checkup.ResultSkipped, Detail: "needs credentials"},
		}
	}
	return collector.Check(ctx)
}

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
	var findings []checkup.Finding
	for _, w := range cfg.Warnings() {
		findings = append(findings, checkup.Finding{Check: "settings", Result: checkup.ResultWarning, Detail: w.Text, Remedy: w.Remedy})
	}
	if findings == nil {
		findings = []checkup.Finding{{Check: "settings", Result: checkup.ResultOK, Detail: "each is there and plausible"}}
	}
	return findings
}

func printJSON(w io.Writer, findings []checkup.Finding) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	for _, f := range findings {
		if err := enc.Encode(f); err != nil {
			return err
		}
	}
	return nil
}

// style is how findings look. Without a terminal there are neither symbols nor
// colours.
type style struct{ symbols, colours bool }

// onTerminal returns the style for w.
func onTerminal(w io.Writer) style {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return style{}
	}
	return style{symbols: true, colours: colours()}
}

func printLines(w io.Writer, findings []checkup.Finding, s style) error {
	width := 0
	for _, f := range findings {
		width = max(width, len(f.Check))
	}
	for _, f := range findings {
		head := s.head(f.Result)
		if _, err := fmt.Fprintf(w, "%s  %-*s  %s\n", head, width, f.Check, f.Detail); err != nil {
			return err
		}
		if f.Remedy != "" {
			if _, err := fmt.Fprintf(w, "%*s  -> %s\n", s.width(), "", f.Remedy); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintln(w, checkup.Tally(findings))
	return err
}

func (s style) width() int {
	if s.symbols {
		return 1
	}
	return len(checkup.ResultWarning)
}

// head is a line's beginning.
func (s style) head(r checkup.Result) string {
	if !s.symbols {
		return fmt.Sprintf("%-*s", s.width(), r)
	}
	symbol, colour := "-", "2" // dim
	switch r {
	case checkup.ResultOK:
		symbol, colour = "✓", "32"
	case checkup.ResultWarning:
		symbol, colour = "!", "33"
	case checkup.ResultFailure:
		symbol, colour = "✗", "31"
	}
	if !s.colours {
		return symbol
	}
	return "\x1b[" + colour + "m" + symbol + "\x1b[0m"
}
