package main

import (
	"bufio"
	"cmp"
	"fmt"
	"log"
	"log/slog"
	"net"
	"os"
	"strings"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"github.com/caarlos0/env/v11"
	"github.com/spf13/cobra"

	"example.com/auditlog/internal/cloudlog"
)

func serveCommand() *cobra.Command {
	var host string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the function on this machine",
		Long: `serve runs the function as the cloud does, through Google's Functions Framework,
on the port of PORT (default 8080). It does a run for each Pub/Sub event that
is posted to it. Settings are read from the environment; "auditlog help settings"
lists them. Starting makes no request to the API or the bucket.

Logs go to standard error. Where that is no terminal, each line is a JSON object,
and there is no other output.

It listens on 127.0.0.1 alone: the server asks nobody who they are (in the cloud
the platform does), and nobody else on your network should be able to trigger
runs with your credentials. In a container, set --host 0.0.0.0.

SIGINT (Ctrl-C) ends it at once, exit status 130: a run that dies on the way
loses nothing, the next one takes up. SIGTERM ends it with status 143. During a
run it ends the reading first: the run commits what it has read and answers, as on
Cloud Run. A second one ends the server at once.`,
		Example: `  auditlog serve
  PORT=9000 auditlog serve --host 0.0.0.0`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if columns(os.Stderr) > 0 {
				return serveSettings(host, func(address string) {
					fmt.Fprintf(cmd.OutOrStdout(), howToTrigger, address, eventType, eventSource)
				})
			}
			log, err := onlyJSON()
			if err != nil {
				return err
			}
			err = serveSettings(host, func(address string) { log.Info("Serving the function on http://" + address + "/") })
			log.Error(err.Error()) // it ends no other way
			return errLogged
		},
	}
	c.Flags().StringVar(&host, "host", "127.0.0.1", "address to listen on")
	return c
}

const howToTrigger = `Serving the function on http://%s/; Ctrl-C ends it. Trigger a run with:

curl -i http://%[1]s/ \
  -H 'Content-Type: application/json' \
  -H 'ce-specversion: 1.0' -H 'ce-id: 1' \
  -H 'ce-type: %s' \
  -H 'ce-source: %s' \
  -d '{"message":{"data":"","messageId":"1"}}'

`

// serveSettings serves the function with the environment's settings. It calls ready before, and
// returns only where that fails.
func serveSettings(host string, ready func(address string)) error {
	// Better said now than at the first event.
	if _, err := loadConfig(env.ToMap(os.Environ())); err != nil {
		return err
	}
	port := cmp.Or(os.Getenv("PORT"), "8080")
	address := net.JoinHostPort(host, port)
	// The framework would say so only after ready.
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("serving the function: %w", err)
	}
	l.Close()
	ready(address)
	return serve(host, port)
}

// onlyJSON makes log entries of what else is printed, by the framework and by Go's HTTP server, and
// returns the logger of these. The function's own logs do not take this way: they must be out when
// the process is killed.
func onlyJSON() (*slog.Logger, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	logger := cloudlog.New(os.Stderr)
	os.Stdout, os.Stderr = w, w
	log.SetOutput(w)
	go func() {
		lines := bufio.NewReader(r)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			if text := strings.TrimSpace(line); text != "" {
				logger.Warn(text)
			}
		}
	}()
	return logger, nil
}

// serve serves the function. It returns only where that fails, and makes no
// request of its own.
func serve(host, port string) error {
	if os.Getenv("FUNCTION_TARGET") == "" {
		os.Setenv("FUNCTION_TARGET", "main")
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]" // the framework joins the two as they are
	}
	if err := funcframework.StartHostPort(host, port); err != nil {
		return fmt.Errorf("serving the function: %w", err)
	}
	return nil
}
