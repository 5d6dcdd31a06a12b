package auditapi

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Generator makes records that look like the real ones and hold what a
// collector is most likely to spoil: escapes, numbers beyond a float64, keys in
// any order, unknown types. The same seed makes the same records.
type Generator struct {
	rand *rand.Rand
	n    int
}

// NewGenerator returns the Generator of that seed. Ids of generators with
// different seeds differ.
func NewGenerator(seed uint64) *Generator {
	return &Generator{rand: rand.New(rand.NewPCG(seed, 0x61756469746c6f67))}
}

// Next returns a record, compact, with that effective_at.
func (g *Generator) Next(at int64) []byte { return g.record(at, 0) }

// NextSize returns a record of exactly size bytes, and of no fewer than it
// takes.
func (g *Generator) NextSize(at int64, size int) []byte { return g.record(at, size) }

// events are the types, each with its payload, "" where it has none. %s stands
// for a random id.
var events = []struct{ typ, payload string }{
	{"login.succeeded", ""},
	{"login.failed", `{"error_code":"invalid_credentials","error_message":"Falscher Benutzername <oder> Passwort & café 😀"}`},
	{"logout.succeeded", ""},
	{"api_key.created", `{"id":"key_%s","data":{"scopes":["api.model.request"]}}`},
	{"api_key.updated", `{"id":"key_%s","changes_requested":{"scopes":["api.model.request","api.audit_logs.read"]}}`},
	{"api_key.deleted", `{"id":"key_%s"}`},
	{"project.created", `{"id":"proj_%s","data":{"name":"R\u0026D \"north\"","title":"R&D"}}`},
	{"project.archived", `{"id":"proj_%s"}`},
	{"invite.sent", `{"id":"invite-%s","data":{"email":"new.person@example.com","role":"member"}}`},
	{"service_account.created", `{"id":"svc_acct_%s","data":{"role":"member"}}`},
	{"user.added", `{"id":"user-%s","data":{"role":"owner"}}`},
	{"rate_limit.updated", `{"id":"rl-%s","changes_requested":{"max_requests_per_1_minute":10000,"batch_1_day_max_input_tokens":9007199254740993}}`},
	{"organization.updated", `{"id":"org-%s","changes_requested":{"api_call_logging":"enabled_for_selected_projects","settings":{}}}`},
	{"certificate.deleted", `{"id":"cert_%s","name":"mtls","certificate":"-----BEGIN CERTIFICATE-----\nMIIBexample\n-----END CERTIFICATE-----\n"}`},
	{"ip_allowlist.config.activated", `{"configs":[{"id":"ipal_%s","name":"office"}]}`},
	{"role.assignment.created", `{"id":"ra_%s","principal_id":"group_ex","principal_type":"group","resource_type":"api.project"}`},
	{"tunnel.created", ""},
	{"future.unknown_event", `{"id":"x_%s","nested":{"list":[1,2,{"k":null}]}}`},
	{"another.unheard_of.event", `[]`},
}

// hard are members that only a careful reader leaves as they are.
var hard = []string{
	`"note":"line\u2028separator and ` + "\u2028\u2029" + ` raw"`,
	`"note":"pair \ud83d\ude00, lone \ud800, 😀 raw"`,
	`"note":"<a href='x'>&amp;</a> \u003c\u003e\u0026 \/ \b\f\n\r\t\\\""`,
	`"amounts":[9007199254740993,1.50,1E+5,-0,0.1e-7,123456789012345678901234567890]`,
	`"empty":[{},[],"",null,false]`,
	`"":{"empty key":""}`,
	`"deep":` + strings.Repeat(`{"a":[`, 40) + `1` + strings.Repeat(`]}`, 40),
	`"id_like":{"id":"audit_log-not-the-id","effective_at":1}`,
	"\"nul\":\"\\u0000\x7f\"",
}

func (g *Generator) record(at int64, size int) []byte {
	event := events[g.rand.IntN(len(events))]
	g.n++
	// The counter keeps ids apart, the rest makes them look as they do.
	id := fmt.Sprintf("audit_log-%s%08x", g.token(16), g.n)
	members := []string{
		fmt.Sprintf(`"id":"%s"`, id),
		fmt.Sprintf(`"type":"%s"`, event.typ),
		fmt.Sprintf(`"effective_at":%d`, at),
		`"actor":` + g.actor(),
	}
	if g.rand.IntN(5) > 0 {
		members = append([]string{`"object":"organization.audit_log"`}, members...)
	}
	if g.rand.IntN(3) > 0 {
		members = append(members, fmt.Sprintf(`"project":{"id":"proj_%04d","name":"Project \"%d\""}`, g.rand.IntN(20), g.rand.IntN(20)))
	}
	if event.payload != "" {
		members = append(members, fmt.Sprintf(`"%s":%s`, event.typ, strings.Replace(event.payload, "%s", g.token(12), 1)))
	}
	for range g.rand.IntN(3) {
		// A namespace each, so that no key comes twice.
		members = append(members, fmt.Sprintf(`"x_%d":{%s}`, len(members), hard[g.rand.IntN(len(hard))]))
	}
	if g.rand.IntN(3) == 0 {
		g.rand.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	}

	record := "{" + strings.Join(members, ",") + "}"
	const padding = `,"padding":""}`
	if fill := size - (len(record) - 1 + len(padding)); fill > 0 {
		record = record[:len(record)-1] + `,"padding":"` + strings.Repeat("p", fill) + `"}`
	}
	return []byte(record)
}

func (g *Generator) actor() string {
	user := g.rand.IntN(50)
	switch g.rand.IntN(8) {
	case 0:
		return "null"
	case 1:
		return fmt.Sprintf(`{"type":"api_key","api_key":{"id":"key_%s","type":"service_account","service_account":{"id":"svc_acct_%02d"}}}`, g.token(12), user)
	case 2:
		return fmt.Sprintf(`{"type":"api_key","api_key":{"id":"key_%s","type":"user","user":{"id":"user-%024d","email":"user%d@example.com"}}}`, g.token(12), user, user)
	}
	return fmt.Sprintf(`{"type":"session","session":{"user":{"id":"user-%024d","email":"user%d@example.com"},"ip_address":"203.0.113.%d","user_agent":"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Safari/537.36","ja3":"%s","ja4":"q13d0313h3_%s","ip_address_details":{"country":"US","city":"San Francisco","region":"California","region_code":"CA","asn":"1234","latitude":"37.77490","longitude":"-122.41940"}}}`,
		user, user, 1+g.rand.IntN(254), g.token(32), g.token(12))
}

// token returns n random characters of an id.
func (g *Generator) token(n int) string {
	const alphabet = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[g.rand.IntN(len(alphabet))]
	}
	return string(b)
}
