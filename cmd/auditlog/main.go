// Command auditlog is the collector for operators: it serves the function on
// this machine, does a single run, or shows the whole at work on a simulated
// API and bucket.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"example.com/auditlog"
	"example.com/auditlog/internal/config"
)

func main() { os.Exit(run()) }

// Exit statuses, but for those of signals.
const (
	exitFailure = 1
	exitUsage   = 2
)

// errLogged is a failure that has been told where logs go, and need not be told
// again.
var errLogged = errors.New("the run failed")

// run executes the command line and returns the exit status.
func run() int {
	root := &cobra.Command{
		Use:   "auditlog",
		Short: "Collect OpenAI's audit logs into Cloud Storage, for Google SecOps",
		Long: `auditlog reads the audit log of an OpenAI organization and writes its new
records, as one object of JSON lines a run, under a Cloud Storage prefix that a
Google SecOps feed reads: none lost, none repeated, none changed, whatever
fails. In production it is a function that a Pub/Sub topic triggers; this
command runs the same code by hand.

` + seeExit,
		Example: `  # See it at work, with nothing but this binary:
  auditlog demo

  # Collect what is new, once:
  GCS_BUCKET=my-bucket OPENAI_ADMIN_KEY=sk-admin-... auditlog run`,
		Version:       auditlog.Version,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	stderr := os.Stderr // the demonstration lends it to the function
	// What fails before a command begins is wrong usage.
	begun := false
	envFile := root.PersistentFlags().String("env-file", "", "take settings that the environment does not have from this file")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if *envFile != "" {
			if err := useEnvFile(*envFile); err != nil {
				return err
			}
		}
		begun = true
		return nil
	}
	root.AddCommand(demoCommand(), sandboxCommand(), runCommand(), serveCommand(), checkCommand(), statusCommand(), backfillCommand(), verifyCommand(), udmCommand(), versionCommand(), settingsTopic())
	for _, c := range root.Commands() {
		c.Long = cmp.Or(c.Long, c.Short) + "\n\n" + seeExit
	}
	root.AddCommand(exitTopic())
	wrapHelp(root, os.Stdout)

	err := root.Execute()
	if err != nil && !errors.Is(err, errLogged) {
		fmt.Fprintln(stderr, "auditlog:", err)
	}
	switch {
	case err == nil:
		return 0
	case begun:
		return exitFailure
	}
	fmt.Fprintln(stderr, "Run 'auditlog help' for usage.")
	return exitUsage
}

// untilSignal returns a context that the first SIGINT or SIGTERM ends. A second one ends the process.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), auditlog.Version) },
	}
}

// loadConfig reads the settings, and says of bad ones where they are explained.
func loadConfig(environment map[string]string) (config.Config, error) {
	cfg, err := config.Load(environment)
	if err != nil {
		err = fmt.Errorf(`%w; "auditlog help settings" explains each`, err)
	}
	return cfg, err
}

const seeExit = `"auditlog help exit" has the exit statuses.`

// exitTopic explains the exit statuses.
func exitTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit",
		Short: "The exit statuses of all commands",
		Long: `Exit statuses:

  0  success: the command has done all of what it was asked for
  1  failure: the last lines say what is wrong
  2  wrong usage: nothing was begun

What counts as failure:

  demo      a record is missing, repeated or changed
  run       the run has not got everything. MAX_RECORDS of it is success
  backfill  the range is not collected, or not known to be; with --detach, not in the backlog
  check     a check has failed, or was interrupted; with --strict also a warning
  status    the verdict is NOT OK, or something could not be read; the rest is shown
  verify    not all that was asked for is checked and right
  udm       not all was read and mapped
  serve     the server could not start, or has stopped

A signal that ends the process at once makes it 128 and the signal's number: 130 after Ctrl-C.`,
	}
}

// settingsTopic explains the settings, and prints them.
func settingsTopic() *cobra.Command {
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	for _, s := range config.Settings() {
		value := s.Default
		if s.Required {
			value = "(required)"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", s.Name, value, s.Help)
	}
	w.Flush()
	return &cobra.Command{
		Use:   "settings",
		Short: "The settings of the collector: all are environment variables",
		Long: `All commands but demo, sandbox and udm take their settings from the environment, under the names that
the function has in the cloud, or from the file of --env-file, which has lines of NAME=VALUE. That
may be the file that deploy/deploy.sh deploys from. The key is never in it. The command itself prints
those of the file, or else of the environment, with all defaults and without the key.

` + table.String() + `
The storage client finds its credentials as Google's clients do: run "gcloud
auth application-default login", or set GOOGLE_APPLICATION_CREDENTIALS to a key
file. With STORAGE_EMULATOR_HOST=host:port it talks to an emulator instead, and
needs none.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return printSettings(cmd.OutOrStdout()) },
	}
}
