package main

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	"github.com/caarlos0/env/v11"
	"github.com/spf13/cobra"
)

func serveCommand() *cobra.Command {
	var host string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the function on this machine",
		Long: `serve runs the function as the cloud does, through Google's Functions Framework,
on the port of PORT (default 8080). It does a run for each Pub/Sub event that
is posted to it. Settings are read from the environment; "auditlog help settings"
lists them. Starting makes no request to the API or the bucket. Logs go to
standard error.

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
			// Better said now than at the first event.
			if _, err := loadConfig(env.ToMap(os.Environ())); err != nil {
				return err
			}
			port := cmp.Or(os.Getenv("PORT"), "8080")
			address := net.JoinHostPort(host, port)
			// The framework would say so only after the lines below.
			l, err := net.Listen("tcp", address)
			if err != nil {
				return fmt.Errorf("serving the function: %w", err)
			}
			l.Close()
			fmt.Fprintf(cmd.OutOrStdout(), `Serving the function on http://%s/; Ctrl-C ends it. Trigger a run with:

curl -i http://%[1]s/ \
  -H 'Content-Type: application/json' \
  -H 'ce-specversion: 1.0' -H 'ce-id: 1' \
  -H 'ce-type: %s' \
  -H 'ce-source: %s' \
  -d '{"message":{"data":"","messageId":"1"}}'

`, address, eventType, eventSource)
			return serve(host, port)
		},
	}
	c.Flags().StringVar(&host, "host", "127.0.0.1", "address to listen on")
	return c
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
