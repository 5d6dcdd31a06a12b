package udm

import (
	"regexp"
	"strings"
	"sync"

	"github.com/ua-parser/uap-go/uaparser"
)

// UserAgent is UDM's parsed user agent (UserAgentProto), without the fields that
// are for the parser's own bookkeeping.
type UserAgent struct {
	Family               string `json:"family,omitempty"`   // of the engine: one of UDM's enum Family
	Platform             string `json:"platform,omitempty"` // Windows, Macintosh, Linux, Android, …
	Device               string `json:"device,omitempty"`   // of mobile devices, mostly
	OS                   string `json:"os,omitempty"`
	Browser              string `json:"browser,omitempty"`
	BrowserVersion       string `json:"browser_version,omitempty"`
	BrowserEngineVersion string `json:"browser_engine_version,omitempty"`
}

// maxUserAgent is how much of a user agent is looked at, in bytes. Real ones have
// a few hundred; hundreds of expressions are tried on it.
const maxUserAgent = 2000

// uap is made when the first user agent comes: that takes about 300 ms. It
// remembers the last 1024 user agents.
var uap = sync.OnceValue(func() *uaparser.Parser {
	p, err := uaparser.New()
	if err != nil {
		panic(err) // the expressions are part of the library
	}
	return p
})

// other is what the library calls what it does not know.
const other = "Other"

var (
	windows = regexp.MustCompile(`Windows NT [0-9.]+`)
	engine  = regexp.MustCompile(`AppleWebKit/([0-9.]+)`)
	version = regexp.MustCompile(`^[0-9.]*[0-9]`)
)

// parseUserAgent reads a User-Agent header with the expressions of the ua-parser
// project. SecOps has a parser of its own; what is known of it are UDM's reference
// on UserAgentProto and examples like this one, which the result is made to
// resemble:
//
//	family APPLEWEBKIT, platform Windows, os "Windows NT 6.1", browser Chrome,
//	browser_version 70.0.3538.110, browser_engine_version 537.36
//
// Other browsers may have other names there: "Mobile Safari" is ua-parser's.
func parseUserAgent(s string) (u UserAgent) {
	if s == "" {
		return u
	}
	if len(s) > maxUserAgent {
		s = strings.Clone(s[:maxUserAgent]) // so that the whole is not remembered
	}
	u.Family = family(s)
	if m := engine.FindStringSubmatch(s); m != nil {
		u.BrowserEngineVersion = m[1]
	}
	if b := uap().ParseUserAgent(s); b.Family != other {
		u.Browser, u.BrowserVersion = b.Family, fullVersion(s, b.ToVersionString())
	}
	if os := uap().ParseOs(s); os.Family != other {
		u.Platform, u.OS = os.Family, os.ToString()
		switch os.Family {
		case "Mac OS X":
			u.Platform = "Macintosh"
		case "Windows":
			// Windows 11 says NT 10.0 as well: the library's "Windows 10" would be a guess.
			if nt := windows.FindString(s); nt != "" {
				u.OS = nt
			}
		}
	}
	if d := uap().ParseDevice(s).Family; d != other && d != "Mac" {
		u.Device = d
	}
	return u
}

// family names the engine, as UDM's enum does.
func family(s string) string {
	for _, f := range []struct{ token, name string }{
		{"AppleWebKit/", "APPLEWEBKIT"},
		{"Trident/", "MSIE"}, {"MSIE ", "MSIE"},
		{"Presto/", "OPERA"},
		{"Gecko/", "GECKO"}, // "like Gecko" has no slash
		{"KHTML/", "KHTML"},
	} {
		if strings.Contains(s, f.token) {
			return f.name
		}
	}
	return "OTHER"
}

// fullVersion is a version as the user agent has it: the library cuts it after
// its third part.
func fullVersion(s, short string) string {
	if _, rest, found := strings.Cut(s, "/"+short+"."); found && short != "" {
		if more := version.FindString(rest); more != "" {
			return short + "." + more
		}
	}
	return short
}
