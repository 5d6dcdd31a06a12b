package audit

import "strings"

// types has the event types of the API's reference, in each line a noun and its verbs
// (https://platform.openai.com/docs/api-reference/audit-logs/object).
const types = `
api_key created updated deleted
certificate created updated deleted
certificates activated deactivated
checkpoint.permission created deleted
external_key registered removed
group created updated deleted
invite sent accepted deleted
ip_allowlist created updated deleted
ip_allowlist.config activated deactivated
login succeeded failed
logout succeeded failed
organization updated
project created updated archived deleted
rate_limit updated deleted
resource deleted
role created updated deleted bound_to_resource unbound_from_resource
role.assignment created deleted
scim enabled disabled
service_account created updated deleted
tunnel created updated deleted
user added updated deleted
workload_identity_provider created updated deleted
workload_identity_provider_mapping created updated deleted
tenant.admin_api_key created updated deleted
tenant.ads_account.onboarding redemption
tenant.api_organization_invite upserted deleted
tenant.billing.alerts updated
tenant.billing.info updated
tenant.billing.overage_limit updated
tenant.chatgpt_access_token revoked
tenant.chatgpt_workspace_invite upserted
tenant.custom_role created updated deleted
tenant.domains migrated
tenant.group created updated deleted
tenant.group.member added removed
tenant.membership revoked accepted declined
tenant.metadata updated
tenant.microsoft_entra_mapping upserted deleted
tenant.migration completed
tenant.migration_rollout.status updated
tenant.migration_rollout.tier updated
tenant.policy created updated deleted attached detached
tenant.principal_authentication_policy resolved
tenant.product_access_policy updated
tenant.project_api_key created
tenant.resource_access updated deleted
tenant.resource_role_assignment created deleted
tenant.resource_share_grant created updated accepted declined revoked deleted
tenant.role.metadata updated
tenant.role_assignment created deleted
tenant.scim.deletion requested
tenant.scim.directory created
tenant.scim.setup started
tenant.service_account updated deleted
tenant.service_account.token revoked
tenant.session_policy created updated deleted
tenant.session_revocation started
tenant.sso migrated
tenant.sso_connection created updated deleted
tenant.sso_connection.setup started
tenant.third_party_app_policy updated
tenant.trusted_access.application submitted
tenant.trusted_access.business_verification started
tenant.usage_limit.group updated
tenant.usage_limit.increase_request updated resolved
tenant.usage_limit.user updated
tenant.usage_limit.workspace updated
tenant.user added updated removed looked_up invited
tenant.workload_identity.access_token issued
tenant.workload_identity.binding created
tenant.workload_identity.mapping created updated archived
tenant.workload_identity.principal provisioned
tenant.workload_identity.provider created updated archived
tenant.workspace_invite_email_settings updated
`

// Types lists the known event types. New ones appear often: an unknown type may be misspelt, but
// must not be refused.
func Types() []string {
	var list []string
	for line := range strings.Lines(types) {
		noun, verbs, _ := strings.Cut(strings.TrimSpace(line), " ")
		for verb := range strings.FieldsSeq(verbs) {
			list = append(list, noun+"."+verb)
		}
	}
	return list
}

// Nearest returns the known word that differs from word by at most two letters, or only in case; ""
// for none.
func Nearest(word string, known []string) (nearest string) {
	word = strings.ToLower(word)
	most := 2
	for _, k := range known {
		if len(word)-len(k) > most || len(k)-len(word) > most {
			continue
		}
		// Two letters are too much of a short word.
		if d := distance(word, k); d <= most && 2*d <= len(k) {
			nearest, most = k, d-1
		}
	}
	return nearest
}

// distance counts the letters to insert, remove or replace to turn a into b
// (https://en.wikipedia.org/wiki/Levenshtein_distance).
func distance(a, b string) int {
	row := make([]int, len(b)+1) // from the part of a read so far to each prefix of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
