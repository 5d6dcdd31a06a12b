package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"example.com/auditlog/internal/audit"
	"example.com/auditlog/internal/store"
	"example.com/auditlog/internal/udm"
)

func udmCommand() *cobra.Command {
	var o udmOptions
	c := &cobra.Command{
		Use:   "udm [FILE | gs://BUCKET/OBJECT | -]...",
		Short: "Show records as Google SecOps will: as UDM events",
		Long: `udm reads records, as the collector writes them, one a line, or pages, as the API
answers, and prints the UDM events that the mapping table of Google's guide makes of
them: a look at what SecOps will show, before a feed is set up. What the table leaves
open is assumed; docs/udm.md says how.

It reads files, standard input (- or no argument), and objects: gs://BUCKET/OBJECT,
or with a / at the end or a * in the name, all that match and end in .ndjson. Each
may be compressed by gzip. For objects it needs the role Storage Object Viewer on the bucket, and credentials
as "auditlog help settings" explains.

On a terminal each event is a block, with the time, the event type and the summary
first. Elsewhere, or with --json, it is a line of JSON with UDM's field names.

With --fields it lists the fields that the table leaves unmapped, with the number
of records that have them: what a parser extension would have to add. A field of
the table is among them where its value is of no use there, such as a latitude
that is no number. With --json the list is one JSON object.

Lines that are not JSON objects are reported on standard error, the first ten of them,
and left out.`,
		Example: `  auditlog udm openai_auditlog_20260213_110000.ndjson
  auditlog udm gs://my-bucket/openai-auditlog/ | jq -r .metadata.event_type | sort | uniq -c
  auditlog udm --fields 'gs://my-bucket/openai-auditlog/openai_auditlog_202602*'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runUDM(cmd.Context(), o, args)
		},
	}
	c.Flags().BoolVar(&o.fields, "fields", false, "list the fields that are left unmapped, instead of events")
	c.Flags().BoolVar(&o.json, "json", false, "print JSON on a terminal, too")
	return c
}

type udmOptions struct{ fields, json bool }

// maxComplaints is how many malformed lines are reported: of a file of another kind, all are.
const maxComplaints = 10

// runUDM prints events while it reads. Problems are reported as they come, and do
// not keep it from the rest.
func runUDM(ctx context.Context, o udmOptions, names []string) error {
	v := &udmView{out: bufio.NewWriter(os.Stdout)}
	switch width := columns(os.Stdout); {
	case o.fields:
		v.record = v.fields.Add
	case width > 0 && !o.json:
		v.record = show(eventBlocks(v.out, width, colours()))
	default:
		v.record = show(func(e *udm.Event) { writeJSON(v.out, e) })
	}
	if len(names) == 0 {
		names = []string{"-"}
	}
	if slices.Contains(names, "-") && columns(os.Stdin) > 0 {
		v.tell("Reading records from this terminal, one a line; Ctrl-D ends them.")
	}
	if err := v.read(ctx, names); err != nil {
		return err
	}
	if o.fields {
		v.report(o.json)
	}
	v.flush()
	switch {
	case v.writing != nil:
		return v.writing
	case v.malformed > 0:
		return fmt.Errorf("left out %s", audit.Count(v.malformed, "malformed line"))
	case v.failed:
		return errLogged
	}
	return nil
}

// udmView is a udm command under way.
type udmView struct {
	out       *bufio.Writer
	record    func(line []byte) error // an error means that the line is none
	fields    udm.Fields
	malformed int   // lines
	failed    bool  // to read an input
	writing   error // to out
}

// read reads the inputs. An error is that of writing.
func (v *udmView) read(ctx context.Context, names []string) error {
	sources := udm.Sources{Stdin: os.Stdin}
	defer sources.Close()
	for _, name := range names {
		for in, err := range sources.Open(ctx, name) {
			if err == nil {
				err = v.input(in)
			}
			if v.writing != nil {
				return v.writing
			}
			if err != nil {
				v.failed = true
				v.tell("auditlog: %s", store.Plain(err))
			}
		}
	}
	return nil
}

func (v *udmView) input(in udm.Input) error {
	defer in.Close()
	err := udm.Records(in, v.flush, func(n int, line []byte, err error) error {
		if err == nil {
			err = v.record(line)
		}
		if err != nil {
			if v.malformed++; v.malformed <= maxComplaints {
				v.tell("%s:%d: %v", in.Name, n, err)
			}
		}
		return v.writing
	})
	if err != nil && v.writing == nil {
		return fmt.Errorf("reading %s: %w", in.Name, err)
	}
	return err
}

// show maps a record and prints its event.
func show(print func(*udm.Event)) func(line []byte) error {
	return func(line []byte) error {
		e, err := udm.Map(line)
		if err == nil {
			print(e)
		}
		return err
	}
}

func (v *udmView) flush() { v.writing = cmp.Or(v.writing, v.out.Flush()) }

// tell reports a problem, on a terminal in its place among the events. Names of files and objects
// may hold anything.
func (v *udmView) tell(format string, args ...any) {
	v.flush()
	fmt.Fprintln(os.Stderr, visible(fmt.Sprintf(format, args...)))
}

// visible escapes what a terminal would obey.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsGraphic(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}

// writeJSON writes v as a line. Errors are the writer's, and stay with it.
func writeJSON(w io.Writer, v any) {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.Encode(v)
}

// eventBlocks shows an event as a block: a title, then a paragraph for each part
// of UDM, of NAME=VALUE, wrapped at the width.
func eventBlocks(w io.Writer, width int, coloured bool) func(*udm.Event) {
	const indent = 18
	return func(e *udm.Event) {
		fmt.Fprintf(w, "%s  %s", paint(coloured, bold, cmp.Or(e.Metadata.EventTimestamp, "no event_timestamp")), paint(coloured, cyan, e.Metadata.EventType))
		if len(e.SecurityResult) > 0 && e.SecurityResult[0].Summary != "" {
			fmt.Fprintf(w, "  %s", paint(coloured, bold, printable(e.SecurityResult[0].Summary)))
		}
		fmt.Fprintln(w)
		part, column := "", 0
		for _, f := range e.Fields() {
			switch f.Name {
			case "metadata.event_timestamp", "metadata.event_type", "security_result.summary":
				continue // the title has it
			}
			head, name, _ := strings.Cut(f.Name, ".")
			value := printable(f.Value)
			size := 1 + len(name) + 1 + utf8.RuneCountInString(value)
			switch {
			case head != part:
				if part != "" {
					fmt.Fprintln(w)
				}
				part, column = head, indent
				fmt.Fprintf(w, "  %-*s", indent-2, head)
			case column+size > width:
				fmt.Fprintf(w, "\n%*s", indent, "")
				column = indent
			}
			fmt.Fprintf(w, " %s%s", paint(coloured, dim, name+"="), value)
			column += size
		}
		fmt.Fprint(w, "\n\n")
	}
}

// printable quotes what would not stand out as a value, or what a terminal would
// obey.
func printable(s string) string {
	odd := func(r rune) bool {
		return !unicode.IsGraphic(r) || unicode.IsSpace(r) || r == '"' || r == utf8.RuneError
	}
	if s == "" || strings.ContainsFunc(s, odd) {
		return strconv.Quote(s)
	}
	return s
}

// fieldReport is what --fields --json prints.
type fieldReport struct {
	Records   int         `json:"records"`   // mapped
	Malformed int         `json:"malformed"` // lines
	Unmapped  []udm.Field `json:"unmapped"`
	More      bool        `json:"more"` // fields than are listed
	Absent    []string    `json:"absent"`
}

func (v *udmView) report(json bool) {
	r := fieldReport{Records: v.fields.Records(), Malformed: v.malformed, Absent: v.fields.Absent()}
	r.Unmapped, r.More = v.fields.Unmapped()
	if json {
		writeJSON(v.out, r)
	} else {
		r.table(v.out)
	}
}

func (r fieldReport) table(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "count\t  field")
	for _, f := range r.Unmapped {
		fmt.Fprintf(w, "%d\t  %s\n", f.Records, printable(f.Path))
	}
	w.Flush()
	if r.More {
		fmt.Fprintf(out, "There are more than %d different fields; the others are not listed.\n", udm.MaxFields)
	}
	fmt.Fprintf(out, "%s read", audit.Count(r.Records, "record"))
	if len(r.Absent) > 0 && r.Records > 0 {
		fmt.Fprintf(out, "; absent or of no use in all of them: %s", strings.Join(r.Absent, ", "))
	}
	fmt.Fprintln(out)
}
