package audit

import (
	"strings"
	"testing"
)

// TestLineReader: each line says what its record is, whatever else it holds,
// and whatever the line before it was.
func TestLineReader(t *testing.T) {
	bad := Line{Bad: true}
	tests := []struct {
		name, line string
		want       Line
	}{
		{"type first", `{"type":"a","effective_at":7}`, Line{At: 7, Type: "a"}},
		{"no type", `{"id":"x","nested":{"type":"no","effective_at":1},"effective_at":8e0,"actor":null}`, Line{At: 8}},
		{"long", `{"effective_at":9,"type":"long","x":"` + strings.Repeat("x", 3<<20) + `"}`, Line{At: 9, Type: "long"}},
		{"line break in the type", `{"type":"line\u2028\u0007break","effective_at":10}`, Line{At: 10, Type: "line break"}},
		{"white space", " {\t\"effective_at\" : 11 , \"type\" : \"a\" }\r\n", Line{At: 11, Type: "a"}},
		{"escaped names", `{"\u0074ype":"a","effective\u005fat":12}`, Line{At: 12, Type: "a"}},
		{"names of another case", `{"Type":"a","effective_at":13,"EFFECTIVE_AT":1}`, Line{At: 13}},
		{"type a number", `{"type":5,"effective_at":14}`, Line{At: 14}},
		{"type null", `{"effective_at":15,"type":null}`, Line{At: 15}},
		{"type an object", `{"type":{"type":"b"},"effective_at":16}`, Line{At: 16}},
		{"type empty", `{"type":"","effective_at":17,"type":"b"`, Line{At: 17}},
		{"two types", `{"type":"a","type":"b","effective_at":18}`, Line{At: 18, Type: "b"}},
		{"two times", `{"effective_at":1,"effective_at":19,"type":"b"}`, Line{At: 19, Type: "b"}},
		{"bad UTF-8", "{\"\xff\":\"\xff\",\"type\":\"a\xff\",\"effective_at\":20}", Line{At: 20, Type: "a\uFFFD"}},
		{"long type", `{"type":"` + strings.Repeat("x", 400) + `","effective_at":21}`, Line{At: 21, Type: strings.Repeat("x", 300) + "…"}},
		{"at the epoch", `{"effective_at":0,"type":"a"}`, Line{Type: "a"}},
		{"cut after both", `{"effective_at":22,"type":"a","x":"cu`, Line{At: 22, Type: "a"}},

		{"empty line", ``, bad},
		{"no time", `{"type":"no time"}`, bad},
		{"nothing in it", `{}`, bad},
		{"array", `[1]`, bad},
		{"array of what a record holds", `["effective_at",7,"type","a"]`, bad},
		{"string", `"effective_at"`, bad},
		{"null", `null`, bad},
		{"time a fraction", `{"effective_at":1.5}`, Line{At: 1}},
		{"time a text", `{"effective_at":"7","type":"a"}`, bad},
		{"time null", `{"type":"a","effective_at":null}`, bad},
		{"second time a fraction", `{"effective_at":1,"effective_at":1.5,"type":"a"}`, Line{At: 1, Type: "a"}},
		{"no JSON", `cut {`, bad},
		{"cut in a name", `{"effective_at":1,"ty`, bad},
		{"cut after a name", `{"effective_at":1,"type"`, bad},
		{"cut in the type", `{"effective_at":1,"type":"a`, bad},
		{"cut in the time", `{"type":"a","effective_at"`, bad},
		{"cut in another value", `{"effective_at":1,"x":{"type":"a"`, bad},
		{"cut before the end, without a type", `{"effective_at":1`, bad},
		{"bad value before the type", `{"effective_at":1,"x":tru,"type":"a"}`, bad},
		{"bad time", `{"type":"a","effective_at":-}`, bad},
	}
	var one LineReader
	for _, tt := range tests {
		for reader, r := range map[string]*LineReader{"one of its own": new(LineReader), "the one of all lines": &one} {
			got := r.Read([]byte(tt.line))
			if got.Bad {
				got = bad // the rest says nothing
			}
			if got != tt.want {
				t.Errorf("%s: reader %s reads %+v, want %+v", tt.name, reader, got, tt.want)
			}
		}
	}
}

// TestDecodeLine: a line is a whole record, and nothing else.
func TestDecodeLine(t *testing.T) {
	const whole = `{"id":"a","type":"t","effective_at":7,"x":[1.50]}`
	if r, err := DecodeLine([]byte(whole + "\n")); err != nil || r.Identity() != (Identity{"a", 7, TypeOf("t")}) || string(r.Line) != whole {
		t.Errorf("%+v, %v", r, err)
	}
	for _, line := range []string{whole[:20], whole[:len(whole)-1], whole + whole, whole + "x", `{"id":"a"}`, `{"effective_at":7}`, `[]`, `x`} {
		if r, err := DecodeLine([]byte(line)); err == nil {
			t.Errorf("%s is %+v", line, r)
		}
	}
}
