// Package product is the collector, through its public door, as the harness of the simulation drives it.
package product

import (
	"context"
	"log/slog"

	"example.com/auditlog"
	"example.com/auditlog/internal/cloudlog"
	"example.com/auditlog/internal/config"
	"example.com/auditlog/internal/openai"
	"example.com/auditlog/internal/sim/harness"
)

// Function does runs.
var Function = harness.Function{
	Run: func(ctx context.Context, settings map[string]string, log *slog.Logger, c harness.Connections) error {
		collector, err := New(settings, c)
		if err != nil {
			return err
		}
		_, err = collector.Run(ctx, log)
		return err
	},
	Logger:    cloudlog.New,
	Transport: openai.NewTransport,
}

// New returns a collector with these settings and connections.
func New(settings map[string]string, c harness.Connections) (*auditlog.Collector, error) {
	cfg, err := config.Load(settings)
	if err != nil {
		return nil, err
	}
	return auditlog.New(context.Background(), cfg, auditlog.Options{Transport: c.API, Storage: c.Storage, Backoff: c.Backoff})
}
